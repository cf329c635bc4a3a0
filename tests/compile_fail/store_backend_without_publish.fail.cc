// A backend that cannot publish is refused by Store, and the message names what is missing.
#include "eyas/store/memory.hpp"
#include "eyas/store/store.hpp"

struct Forgetful : eyas::Memory {
    using Memory::Memory;
#ifndef EYAS_POSITIVE_CONTROL
    void publish() = delete;
#endif
};
using Refused = eyas::Store<Forgetful>;
static_assert(sizeof(Refused) > 0);

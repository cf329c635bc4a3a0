#pragma once
#include <unistd.h>

#include <filesystem>
#include <memory>
#include <string>

#include "eyas/transport/posix.hpp"
#include "forked.hpp"
#include "served_pool.hpp"

namespace eyas::test {

/// The address that a pool in another process says through a file.
inline Address said(const std::filesystem::path& file) {
    conformance::demand(conformance::eventually([&] { return std::filesystem::exists(file); }),
                        "an address");
    return parse_address(read_text_file(file));
}

/// A pool of backend B in a process of its own, as on another machine.
template <class B>
std::unique_ptr<conformance::Process> serve(const typename B::Options& place,
                                            const std::string& listen,
                                            const std::filesystem::path& file) {
    return std::make_unique<conformance::Process>([=] {
        Served<Transport<Posix>, B> pool(place, listen);
        write_text_file(file, pool.server->address().text());
        for (;;) ::pause();
    });
}

}  // namespace eyas::test

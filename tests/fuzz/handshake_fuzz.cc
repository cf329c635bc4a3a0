// Both sides of the handshake, with and without a token, and the envelopes of what follows. Nobody
// who does not know the token is let in.
#include "eyas/transport/envelope.hpp"
#include "eyas/transport/handshake.hpp"
#include "scripted_link.hpp"

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    using namespace eyas;
    const auto bytes = fuzz::bytes_of(data, size);
    const detail::Id128 id{std::byte{1}};
    for (const std::string token : {"", "secret"}) {
        bool in = false;
        fuzz::refuse_or_read([&] {
            fuzz::Feed feed(bytes);
            fuzz::ScriptedLink link(&feed);
            detail::Handshake::as_client(link, token, id, {});
            in = true;
        });
        fuzz::refuse_or_read([&] {
            fuzz::Feed feed(bytes);
            fuzz::ScriptedLink link(&feed);
            detail::Handshake::as_server(link, token, id, {});
            in = true;
        });
        fuzz::require(!in || token.empty());
    }
    const detail::Acquainted open{}, keyed{.keyed = true, .key = {std::byte{9}}};
    fuzz::refuse_or_read([&] { (void)detail::Envelope::open_request(bytes, open, 0, "fuzz"); });
    fuzz::refuse_or_read([&] {
        (void)detail::Envelope::open_request(bytes, keyed, 0, "fuzz");
        fuzz::require(false);  // a MAC that nobody made
    });
    fuzz::refuse_or_read([&] {
        if (const auto error = detail::Envelope::open_reply(bytes, open, 0, "fuzz").error)
            std::rethrow_exception(error);
    });
    return 0;
}

#pragma once
#include <memory>
#include <utility>

#include "eyas/transport/client.hpp"
#include "eyas/transport/server.hpp"

namespace eyas {

/// Requests and answers between processes over one backend: credentials, deadlines, reconnection,
/// numbered requests and typed errors are written here, once. Needs libcrypto. Thread-safe; clients
/// and servers share the backend and may outlive the transport.
///
///   Transport<Posix> transport;
///   auto server = transport.serve(parse_address("eyas+tcp://127.0.0.1:0"), service, {});
///   auto client = transport.client(server->address(), {});
///   client->call({.head = bytes, .answer = …});
template <TransportBackend B>
class Transport {
public:
    using backend_type = B;
    using Options = typename B::Options;
    using Client = detail::TransportClient<B>;
    template <TransportService S>
    using Server = detail::TransportServer<B, S>;

    explicit Transport(Options options = Options())
        : backend_(std::make_shared<B>(std::move(options))) {}

    /// Connects at the first call.
    std::unique_ptr<Client> client(const Address& address, ClientOptions options) {
        return std::make_unique<Client>(backend_, address, std::move(options));
    }

    /// Listens when it returns; the service must outlive the server.
    template <TransportService S>
    std::unique_ptr<Server<S>> serve(const Address& address, S& service, ServerOptions options) {
        return std::make_unique<Server<S>>(backend_, address, service, std::move(options));
    }

    B& backend() { return *backend_; }

private:
    std::shared_ptr<B> backend_;
};

}  // namespace eyas

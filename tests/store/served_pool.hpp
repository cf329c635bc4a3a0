#pragma once
#include <functional>
#include <memory>
#include <string>

#include "eyas/store/pool_service.hpp"
#include "eyas/store/remote_pool.hpp"
#include "eyas/store/store.hpp"

namespace eyas::test {

/// A store of backend B in this process, served over transport T.
template <class T, class B>
struct Served {
    Store<B> store;
    PoolService<Store<B>> service{store};
    std::unique_ptr<typename T::template Server<PoolService<Store<B>>>> server;

    /// `same_host` false: as if its clients were on another machine.
    Served(typename B::Options options, const std::string& address, StorePolicy policy = {},
           bool same_host = false)
        : store(std::move(options), policy),
          server(T().serve(parse_address(address), service,
                           {.auth_token = policy.auth_token, .same_host = same_host})) {}

    typename RemotePool<T>::Options client(const std::string& token = {}) const {
        return {.address = server->address(),
                .client = {.auth_token = token,
                           .timeout = std::chrono::seconds(20),
                           .reconnect_timeout = std::chrono::milliseconds(300)}};
    }
};

}  // namespace eyas::test

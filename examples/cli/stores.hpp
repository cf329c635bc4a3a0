#pragma once
#include <charconv>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <type_traits>
#include <utility>

#include "eyas/ingest/scan.hpp"
#include "eyas/sample/manifest.hpp"
#include "eyas/store/local_files.hpp"
#include "eyas/store/packed_shards.hpp"
#include "eyas/store/remote_pool.hpp"
#include "eyas/store/shared_directory.hpp"
#include "eyas/store/store.hpp"
#include "eyas/store/uri.hpp"
#include "eyas/transport/posix.hpp"
#ifdef EYAS_CLI_UCX
#include "eyas/transport/ucx.hpp"
#endif

namespace eyas::cli {

/// Which store a command works on. The token is never given on the command line, where other users
/// could see it, but in the environment.
struct StoreArguments {
    std::string uri;
    bool consume_once = false, verify = true;
    StorePolicy policy() const {
        StorePolicy p;
        p.retain_on_release = !consume_once;
        p.verify_checksums = verify;
        if (const char* token = std::getenv("DISAGG_AUTH_TOKEN")) p.auth_token = token;
        return p;
    }
};

/// Calls f with the transport that speaks an address: the one place where its scheme becomes a
/// type.
template <class F>
decltype(auto) with_transport(const Address& address, F&& f) {
#ifdef EYAS_CLI_UCX
    if (Ucx::serves(address.scheme)) return f(std::type_identity<Transport<Ucx>>{});
#endif
    if (Posix::serves(address.scheme)) return f(std::type_identity<Transport<Posix>>{});
    throw ContractError("this program does not speak '" + address.scheme + "'", address.text(),
                        "Use eyas+tcp:// or eyas+unix://; eyas+ucx:// needs a build with UCX");
}

inline constexpr const char* store_forms =
    "Use file:DIR, disagg:DIR?store_id=NAME, packed:DIR, or a pool's eyas+tcp://HOST:PORT, "
    "eyas+ucx://HOST:PORT, eyas+unix:///PATH";

inline constexpr const char* packed_manifest = "manifest.json";  // in the directory

inline Address address_of(const StoreUri& uri) {
    return parse_address(uri.scheme + ":" + uri.path.string());
}

/// eyas+tcp://HOST:PORT?timeout=SECONDS&links=N&same_host=0|1
template <class T>
typename RemotePool<T>::Options remote_pool_options(const StoreUri& uri, const std::string& token) {
    typename RemotePool<T>::Options o{.address = address_of(uri), .client = {.auth_token = token}};
    for (const auto& [key, value] : uri.parameters) {
        std::int64_t n = 0;
        const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), n);
        const bool number = error == std::errc{} && end == value.data() + value.size() && n > 0;
        if (key == "timeout" && number && n <= 86'400)
            o.client.timeout = std::chrono::seconds(n);
        else if (key == "links" && number && n <= 64)
            o.client.links = static_cast<std::size_t>(n);
        else if (key == "same_host" && (value == "0" || value == "1"))
            o.client.same_host = value == "1";
        else
            throw ContractError("unknown parameter " + key + "=" + value, uri.text,
                                "Use timeout=SECONDS, links=1..64, same_host=0|1");
    }
    return o;
}

/// Opens the store on this machine's file system that a URI names and calls f(store). ContractError
/// for another scheme, with `remedy`.
template <class F>
decltype(auto) with_files(const StoreUri& uri, const StorePolicy& policy, const char* remedy,
                          F&& f) {
    if (uri.scheme == LocalFiles::scheme) {
        Store<LocalFiles> store(local_files_options(uri), policy);
        return f(store);
    }
    if (uri.scheme == PackedShards::scheme) {
        Store<PackedShards> store(packed_shards_options(uri), policy);
        return f(store);
    }
    if (uri.scheme == SharedDirectory::scheme) {
        Store<SharedDirectory> store(shared_directory_options(uri), policy);
        return f(store);
    }
    throw ContractError("no store for scheme '" + uri.scheme + "'", uri.text, remedy);
}

/// Opens the store that a URI names and calls f(store): the one place where a scheme becomes a
/// type.
template <class F>
decltype(auto) with_store(const StoreArguments& arguments, F&& f) {
    const auto uri = parse_store_uri(arguments.uri);
    if (is_address(uri.scheme)) {
        return with_transport(address_of(uri), [&](auto transport) -> decltype(auto) {
            using T = typename decltype(transport)::type;
            Store<RemotePool<T>> store(remote_pool_options<T>(uri, arguments.policy().auth_token),
                                       arguments.policy());
            return f(store);
        });
    }
    return with_files(uri, arguments.policy(), store_forms, f);
}

/// The samples to read: those of a manifest, or for file:DIR all feature files of the directory,
/// for packed:DIR those of the manifest that eyas pack wrote into it.
inline Manifest samples_of(const StoreArguments& store, const std::string& manifest) {
    if (!manifest.empty()) return read_manifest(manifest);
    const auto uri = parse_store_uri(store.uri);
    if (uri.scheme == PackedShards::scheme && std::filesystem::exists(uri.path / packed_manifest))
        return read_manifest(uri.path / packed_manifest);
    if (uri.scheme != LocalFiles::scheme)
        throw ContractError("a manifest is needed", store.uri,
                            "Add --manifest FILE; only file:DIR can list its samples");
    return scan_features(uri.path);
}

}  // namespace eyas::cli

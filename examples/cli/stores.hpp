#pragma once
#include <cstdlib>
#include <filesystem>
#include <string>
#include <utility>

#include "eyas/ingest/scan.hpp"
#include "eyas/sample/manifest.hpp"
#include "eyas/store/local_files.hpp"
#include "eyas/store/shared_directory.hpp"
#include "eyas/store/store.hpp"
#include "eyas/store/uri.hpp"

namespace eyas::cli {

/// Which store a command works on. The token is never given on the command line, where other users
/// could see it, but in the environment.
struct StoreArguments {
    std::string uri;
    StorePolicy policy() const {
        StorePolicy p;
        if (const char* token = std::getenv("DISAGG_AUTH_TOKEN")) p.auth_token = token;
        return p;
    }
};

/// Opens the store that a URI names and calls f(store): the one place where a scheme becomes a
/// type.
template <class F>
decltype(auto) with_store(const StoreArguments& arguments, F&& f) {
    const auto uri = parse_store_uri(arguments.uri);
    if (uri.scheme == LocalFiles::scheme) {
        Store<LocalFiles> store(local_files_options(uri), arguments.policy());
        return f(store);
    }
    if (uri.scheme == SharedDirectory::scheme) {
        Store<SharedDirectory> store(shared_directory_options(uri), arguments.policy());
        return f(store);
    }
    throw ContractError("no store for scheme '" + uri.scheme + "'", arguments.uri,
                        "Use file:DIR or disagg:DIR?store_id=NAME");
}

/// The samples to read: those of a manifest, or for file:DIR all feature files of the directory.
inline Manifest samples_of(const StoreArguments& store, const std::string& manifest) {
    if (!manifest.empty()) return read_manifest(manifest);
    const auto uri = parse_store_uri(store.uri);
    if (uri.scheme != LocalFiles::scheme)
        throw ContractError("a manifest is needed", store.uri,
                            "Add --manifest FILE; only file:DIR can list its samples");
    return scan_features(uri.path);
}

}  // namespace eyas::cli

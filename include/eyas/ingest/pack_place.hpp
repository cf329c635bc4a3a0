#pragma once
#include <algorithm>
#include <filesystem>
#include <memory>
#include <set>
#include <span>
#include <string>
#include <unordered_set>
#include <utility>
#include <vector>

#include "eyas/ingest/pack_plan.hpp"
#include "eyas/store/credential.hpp"
#include "eyas/store/packed_shards.hpp"

namespace eyas::detail {

/// The directory that samples are packed into, and what may be written there.
class PackPlace {
public:
    PackPlace(std::filesystem::path dir, const PackOptions& options)
        : dir_(std::move(dir)), options_(options) {}

    std::filesystem::path path_of(std::size_t shard) const {
        return dir_ / PackedShard::file_name(shard);
    }

    /// Throws ContractError where packing these samples would hide or destroy something: shards of
    /// another pack, shards whose samples were consumed, a file of a shard's name that is none,
    /// or the same samples as objects, which take the packed ones' place when they are read.
    void require_free(std::span<const SampleRef> refs, const std::vector<ShardPlan>& plans) const {
        if (Tombstones(dir_, false).any())
            refuse("samples that were packed here have been consumed");
        std::set<std::string> known;
        for (std::size_t n = 0; n < plans.size(); ++n) {
            known.insert(PackedShard::file_name(n));
            const auto there = shard(n);
            if (there && there->index().plan() != plans[n].number) known.clear();
            if (known.empty()) break;
        }
        if (!std::ranges::includes(known, ShardSet::names_in(dir_)))
            refuse("shards of other samples, or packed in another way, lie here");
        for (const auto& objects : {dir_, dir_ / PackedShards::put_directory})
            refuse_objects(refs, objects);
    }

    /// The shard of an earlier call; null where there is none.
    std::unique_ptr<PackedShard> shard(std::size_t n) const {
        const auto path = path_of(n);
        if (!std::filesystem::exists(path)) return nullptr;
        try {
            return std::make_unique<PackedShard>(path);
        } catch (const DataError& e) {
            throw ContractError(
                std::string("a file of this name is here and cannot be read: ") + e.what(),
                path.string(), "Remove it, or pack into an empty directory");
        }
    }

    /// Gives the directory the token. Throws AuthenticationError where it has shards without one,
    /// or another one.
    void protect() const {
        PackedShards place({.root = dir_, .durable = options_.durable});
        if (!place.credential_record())
            place.set_credential_record(make_credential_record(options_.auth_token));
        const auto record = place.credential_record();
        if (!record || !credential_matches(options_.auth_token, *record))
            throw AuthenticationError(
                record ? "the directory has another token" : "shards without a token lie here",
                dir_.string(), "Use the token of the first pack, or an empty directory");
    }

private:
    [[noreturn]] void refuse(const std::string& what) const {
        throw ContractError(what, dir_.string(), "Pack into an empty directory");
    }

    void refuse_objects(std::span<const SampleRef> refs,
                        const std::filesystem::path& objects) const {
        std::unordered_set<std::string> there;
        std::error_code none;
        for (const auto& entry : std::filesystem::directory_iterator(objects, none))
            if (auto name = ObjectName::parse(entry.path().filename().string()))
                there.insert(std::move(name->sample));
        for (const auto& r : refs)
            if (there.contains(r.sample_id))
                refuse("sample '" + r.sample_id +
                       "' lies here as an object of its own, which would hide the packed one");
    }

    std::filesystem::path dir_;
    const PackOptions& options_;
};

}  // namespace eyas::detail

#pragma once
#include <algorithm>
#include <cmath>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

#include "eyas/collective/collective.hpp"
#include "eyas/collective/shard_list.hpp"
#include "eyas/core/bfloat16.hpp"
#include "eyas/device/mark.hpp"
#include "eyas/device/transfer.hpp"

namespace eyas::conformance {

/// Rank p's values: of all sizes and both signs, so that another order of additions shows.
template <class T>
std::vector<T> values_of_rank(int rank, std::size_t n) {
    std::mt19937_64 random(static_cast<std::uint64_t>(rank) * 1000 + n);
    std::vector<T> v(n);
    for (auto& x : v)
        x = static_cast<T>(std::ldexp(static_cast<double>(random() % 2'000'001) / 1e6 - 1.0,
                                      static_cast<int>(random() % 20)));
    return v;
}

/// Ways to cut n elements into a shard for each rank: even ones, all in one, some of nothing.
inline std::vector<std::vector<std::size_t>> cuts(std::size_t n, int world) {
    const auto ranks = static_cast<std::size_t>(world), last = ranks - 1;
    std::vector<std::vector<std::size_t>> all(3, std::vector<std::size_t>(ranks, 0));
    for (auto& c : all[0]) c = n / ranks;
    all[0][last] += n % ranks;
    all[1][last] = n;
    all[2][last] = n - n / 3;
    all[2][0] += n / 3;
    return all;
}

namespace detail {
inline void must(bool holds, const std::string& what, std::size_t n) {
    if (!holds) throw std::runtime_error(what + " of " + std::to_string(n));
}

/// What any rank would have, given each rank's own values: shards of each.
template <class T, class F>
std::vector<T> shards_of(const std::vector<std::size_t>& counts, F&& values) {
    std::vector<T> all;
    for (std::size_t p = 0; p < counts.size(); ++p) {
        const std::vector<T> theirs = values(static_cast<int>(p));
        const auto begin = theirs.begin() + static_cast<std::ptrdiff_t>(all.size());
        all.insert(all.end(), begin, begin + static_cast<std::ptrdiff_t>(counts[p]));
    }
    return all;
}

/// The same values in each precision.
template <class T>
std::vector<T> values_as(int rank, std::size_t n) {
    std::vector<T> v;
    for (const auto x : values_of_rank<float>(rank, n)) v.push_back(T(x));
    return v;
}

/// Whether a rank's shard has the same values in both.
inline bool same_shard(const std::vector<float>& a, const std::vector<float>& b,
                       const std::vector<std::size_t>& counts, int rank) {
    const auto starts = eyas::detail::starts_of(counts);
    return std::ranges::equal(eyas::detail::shard_of(std::span(a), starts, rank),
                              eyas::detail::shard_of(std::span(b), starts, rank));
}

template <class T, class C>
void check_gathers(C& group, const std::vector<std::size_t>& counts, std::size_t n) {
    const auto values = [n](int rank) { return values_as<T>(rank, n); };
    const auto same = [](const std::vector<T>& a, const std::vector<T>& b) {
        return std::ranges::equal(std::as_bytes(std::span(a)), std::as_bytes(std::span(b)));
    };
    const auto whole = shards_of<T>(counts, values);
    auto v = values(group.rank());
    group.all_gather(std::span(v), counts);
    must(same(v, whole), "all_gather", n);
    for (int root = 0; root < group.world(); ++root) {
        v = values(group.rank());
        group.gather(std::span(v), counts, root);
        must(same(v, group.rank() == root ? whole : values(group.rank())), "gather", n);
    }
}
}  // namespace detail

/// What a rank sees of reduce_scatter, all_gather and gather of up to `largest` elements; every
/// rank of the group calls it. Throws std::runtime_error that says what is wrong.
template <class C>
void check_shards(C& group, std::size_t largest) {
    for (const std::size_t n :
         {std::size_t{0}, std::size_t{1}, std::size_t{10}, std::size_t{4097}, largest})
        for (const auto& counts : cuts(n, group.world())) {
            auto sum = values_of_rank<float>(group.rank(), n), v = sum;
            group.all_reduce(std::span(sum));
            group.reduce_scatter(v, counts);
            detail::must(detail::same_shard(v, sum, counts, group.rank()), "reduce_scatter", n);
            detail::check_gathers<float>(group, counts, n);
            if (n < 10'000) detail::check_gathers<BFloat16>(group, counts, n);
        }
}

/// Sums are made in the order of the ranks, element by element: their bits depend on nothing else.
/// Every rank calls it.
template <class T, class C>
void check_order_of_sums(C& group, std::size_t n) {
    auto sum = values_of_rank<T>(0, n);
    for (int p = 1; p < group.world(); ++p) {
        const auto term = values_of_rank<T>(p, n);
        for (std::size_t i = 0; i < n; ++i) sum[i] += term[i];
    }
    auto v = values_of_rank<T>(group.rank(), n);
    group.all_reduce(std::span(v));
    detail::must(v == sum, "the order of a sum", n);
}

/// The bits of every root, everywhere. Every rank calls it.
template <class C>
void check_broadcast(C& group, std::size_t n) {
    for (int root = 0; root < group.world(); ++root) {
        auto v = values_of_rank<float>(group.rank(), n);
        group.broadcast(std::as_writable_bytes(std::span(v)), root);
        detail::must(v == values_of_rank<float>(root, n), "broadcast", n);
    }
}

namespace detail {
/// What a device works on becomes what call(span) makes of `values` there.
template <class T, class D, class F>
std::vector<T> on_device(const D& device, std::vector<T> values, F&& call) {
    Tensor t(dtype_of<T>, {static_cast<std::int64_t>(values.size())}, device.memory());
    upload(device, std::span<const T>(values), t.template as<T>().data());
    call(t.template as<T>());
    download(device, t.template as<T>().data(), std::span(values));
    return values;
}
}  // namespace detail

/// reduce_scatter and all_gather of what a device works on, as those of what the host has. Every
/// rank calls it.
template <class C, class D>
void check_device_shards(C& group, const D& device, std::size_t largest) {
    detail::must(group.reaches(device), "reach", 0);
    for (const std::size_t n : {std::size_t{1}, std::size_t{10}, std::size_t{4097}, largest})
        for (const auto& counts : cuts(n, group.world())) {
            const auto mine = values_of_rank<float>(group.rank(), n);
            auto sum = mine;
            group.all_reduce(std::span(sum));
            const auto got = detail::on_device(device, mine, [&](std::span<float> v) {
                group.reduce_scatter(v, counts, mark_of(device));
            });
            detail::must(detail::same_shard(got, sum, counts, group.rank()),
                         "reduce_scatter on a device", n);
            const auto gathered = [&]<class T>(T) {
                const auto values = [n](int rank) { return detail::values_as<T>(rank, n); };
                const auto all = detail::on_device(
                    device, values(group.rank()),
                    [&](std::span<T> v) { group.all_gather(v, counts, mark_of(device)); });
                const auto whole = detail::shards_of<T>(counts, values);
                return std::ranges::equal(std::as_bytes(std::span(all)),
                                          std::as_bytes(std::span(whole)));
            };
            detail::must(gathered(float{}), "all_gather on a device", n);
            detail::must(gathered(BFloat16{}), "all_gather on a device", n);
        }
}

/// Shards that make no sense are refused before anybody is asked.
template <class C>
void check_wrong_shards(C& group) {
    const auto ranks = static_cast<std::size_t>(group.world());
    std::vector<float> v(3 * ranks);
    std::vector<std::vector<std::size_t>> wrong(4, std::vector<std::size_t>(ranks, 3));
    wrong[0][0] = 2;
    wrong[1][0] = 4;
    wrong[2].push_back(0);
    wrong[3][0] = ~std::size_t{0};
    const auto refused = [&](auto&& call) {
        try {
            call();
        } catch (const ContractError&) {
            return;
        }
        throw std::runtime_error("wrong shards were taken");
    };
    for (const auto& counts : wrong) {
        refused([&] { group.reduce_scatter(v, counts); });
        refused([&] { group.all_gather(std::span(v), counts); });
        refused([&] { group.gather(std::span(v), counts); });
    }
    const std::vector<std::size_t> right(ranks, 3);
    refused([&] { group.gather(std::span(v), right, group.world()); });
    refused([&] { group.gather(std::span(v), right, -1); });
}

}  // namespace eyas::conformance

#include "eyas/trainer/shards.hpp"

#include <catch2/catch.hpp>
#include <set>

#include "eyas/core/bfloat16.hpp"

using namespace eyas;
using detail::Shards;

namespace {
/// Parameters of these sizes behind one another in one block, as the real model's lie.
template <class T>
struct Block {
    explicit Block(const std::vector<std::int64_t>& sizes, std::set<std::size_t> untrained = {}) {
        std::int64_t n = 0;
        for (const auto s : sizes) n += s;
        values = Tensor::zeros(dtype_of<T>, {n});
        grads = Tensor::zeros(DType::F32, {n});
        std::int64_t at = 0;
        for (const auto s : sizes) {
            parameters.push_back(
                {"p" + std::to_string(parameters.size()),
                 {values.mutable_view().data + at * static_cast<std::int64_t>(sizeof(T)),
                  dtype_of<T>,
                  {s}},
                 {grads.mutable_view().data + at * 4, DType::F32, {s}},
                 !untrained.contains(parameters.size())});
            at += s;
        }
    }
    Tensor values, grads;
    std::vector<Parameter> parameters;
};

std::int64_t elements_of(std::span<const Parameter> parameters) {
    std::int64_t n = 0;
    for (const auto& p : parameters) n += p.value.shape.elements();
    return n;
}
}  // namespace

TEST_CASE("a world of one owns the parameters as they are, in no bucket") {
    Block<float> block({100, 7}, {1});
    const Shards shards(block.parameters, 0, 1, 1024);
    CHECK_FALSE(shards.shared());
    CHECK(shards.buckets().empty());
    REQUIRE(shards.owned().size() == 2);
    for (std::size_t i = 0; i < 2; ++i) {
        CHECK(shards.owned()[i].value.data == block.parameters[i].value.data);
        CHECK(shards.owned()[i].value.shape == block.parameters[i].value.shape);
    }
}

TEMPLATE_TEST_CASE("every trained element has one owner, whatever the world and the buckets", "",
                   float, BFloat16) {
    Block<TestType> block({1000, 3, 17, 512, 1, 4000}, {3});
    for (const int world : {2, 3, 4, 7})
        for (const std::int64_t bucket : {1, 64, 1000, 4096, 1 << 22}) {
            std::vector<int> owners(5533, 0);
            for (int rank = 0; rank < world; ++rank) {
                const Shards shards(block.parameters, rank, world, bucket);
                REQUIRE(shards.owned().size() == shards.slices().size() + (rank == 0 ? 1 : 0));
                for (std::size_t s = 0; s < shards.slices().size(); ++s) {
                    const auto& slice = shards.slices()[s];
                    const auto& part = shards.owned()[s];
                    CHECK(part.name == block.parameters[slice.parameter].name);
                    const auto first = part.grad.template as<float>().data() -
                                       block.grads.template as<float>().data();
                    CHECK(first == part.value.template as<TestType>().data() -
                                       block.values.template as<TestType>().data());
                    for (std::size_t i = 0; i < slice.count; ++i)
                        ++owners[static_cast<std::size_t>(first) + i];
                }
                if (rank == 0) CHECK(shards.owned().back().name == "p3");
                CHECK(shards.slices_end(shards.buckets().size() - 1) == shards.slices().size());
            }
            for (std::size_t i = 0; i < owners.size(); ++i)
                CHECK(owners[i] == (i >= 1020 && i < 1532 ? 0 : 1));  // p3 receives no gradient
        }
}

TEST_CASE("buckets are neighbours in memory, full but at the ends, and cut at whole lines") {
    Block<float> block({1000, 3, 17, 512, 1, 4000}, {3});
    const Shards shards(block.parameters, 0, 3, 2048);  // 512 elements
    // p0 to p2 lie together, then p4 and p5.
    std::vector<std::size_t> sizes;
    const float* end = nullptr;
    for (const auto& b : shards.buckets()) {
        sizes.push_back(b.size());
        std::size_t offset = 0, owned = 0;
        for (const auto& p : b.pieces) {
            CHECK(p.offset == offset);
            offset += p.count;
        }
        CHECK(offset == b.size());
        for (std::size_t r = 0; r < 3; ++r) {
            CHECK((owned % 16 == 0 || owned == b.size()));
            owned += b.shards[r];
        }
        CHECK(owned == b.size());
        CHECK((sizes.size() == 1 || sizes.size() == 3 || b.gradients.data() == end));
        end = b.gradients.data() + b.size();
    }
    CHECK(sizes == std::vector<std::size_t>{512, 508, 512, 512, 512, 512, 512, 512, 512, 417});
}

TEST_CASE("a rank keeps its share of the optimizer's state and little more") {
    Block<float> block({1'000'003, 70'001});
    for (const int world : {2, 4})
        for (int rank = 0; rank < world; ++rank) {
            const Shards shards(block.parameters, rank, world, 1 << 18);
            // A bucket gives a rank at most a line more than its share.
            CHECK(elements_of(shards.owned()) <=
                  1'070'004 / world + 16 * static_cast<std::int64_t>(shards.buckets().size()));
        }
}

TEST_CASE("parameters that lie apart are in buckets of their own") {
    Block<float> a({20}), b({30});
    auto both = a.parameters;
    both.push_back(b.parameters[0]);
    const Shards shards(both, 1, 2, 1 << 20);
    REQUIRE(shards.buckets().size() == 2);
    CHECK(shards.buckets()[1].gradients.data() == b.grads.as<float>().data());
    CHECK(shards.buckets()[0].shards == std::vector<std::size_t>{16, 4});
}

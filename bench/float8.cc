// float8 --features DIR [--runs R]: what float8_e4m3fn with scales does to the hidden states of
// feature files: relative error (root of squared error over squared norm, of all rows and of the
// worst row) with one scale a row and with one for each captured layer, and the speed of encoding
// and decoding beside this machine's memcpy, in the same run.
#include "eyas/core/float8.hpp"

#include <cmath>
#include <cstdio>
#include <cstring>
#include <vector>

#include "bench/timing.hpp"
#include "eyas/core/convert.hpp"
#include "eyas/format/torch_file.hpp"
#include "eyas/ingest/scan.hpp"

namespace {
using namespace eyas;

struct Errors {
    double squared = 0, norm = 0, worst_row = 0;

    void add(const TensorView& have, const TensorView& want) {
        Tensor a(DType::F32, have.shape), b(DType::F32, want.shape);
        convert_into(have, a.mutable_view());
        convert_into(want, b.mutable_view());
        const auto width = static_cast<std::size_t>(want.shape[want.shape.rank() - 1]);
        const auto x = a.as<float>(), y = b.as<float>();
        for (std::size_t from = 0; from < x.size(); from += width) {
            double e = 0, n = 0;
            for (std::size_t i = from; i < from + width; ++i)
                e += std::pow(static_cast<double>(x[i] - y[i]), 2),
                    n += std::pow(static_cast<double>(y[i]), 2);
            squared += e, norm += n;
            worst_row = std::max(worst_row, std::sqrt(e / n));
        }
    }
};

void errors(const std::vector<TorchFile>& files, std::string_view name, std::int64_t groups) {
    Errors all, low_all;
    for (const auto& f : files) {
        const auto t = f.at(name);
        const auto e = encode_e4m3(t, groups, "bench");
        Tensor back(t.dtype, t.shape);
        decode_e4m3(e.codes, e.scales, back.mutable_view());
        all.add(back, t);
        const auto third = t.shape[2] / 3;
        // The layer with the smallest states suffers most from a scale that it shares.
        Tensor low(t.dtype, {t.shape[1], third}), low_back(t.dtype, {t.shape[1], third});
        const auto bytes = static_cast<std::size_t>(third) * size_of(t.dtype);
        for (std::int64_t r = 0; r < t.shape[1]; ++r) {
            const auto row = static_cast<std::size_t>(r) * bytes;
            std::memcpy(low.mutable_view().data + row, t.data + 3 * row, bytes);
            std::memcpy(low_back.mutable_view().data + row, back.view().data + 3 * row, bytes);
        }
        low_all.add(low_back, low);
    }
    std::printf(
        "%-18s %lld scales a row: relative error %.4f, worst row %.4f; first third of the "
        "columns %.4f, worst row %.4f\n",
        std::string(name).c_str(), static_cast<long long>(groups),
        std::sqrt(all.squared / all.norm), all.worst_row, std::sqrt(low_all.squared / low_all.norm),
        low_all.worst_row);
}
void speed(std::size_t runs) {
    Tensor t(DType::BF16, {1, 2048, 3 * 4096}), back(DType::BF16, t.shape());
    auto x = t.as<BFloat16>();
    for (std::size_t i = 0; i < x.size(); ++i) x[i] = BFloat16(std::sin(static_cast<float>(i)));
    ScaledFloat8 e = encode_e4m3(t, 3, "bench");
    const auto bytes = static_cast<double>(t.view().size_bytes());
    const auto say = [&](const char* what, const bench::Times& time) {
        std::printf("%-18s %6.2f GB/s of bfloat16 (%.2f to %.2f)\n", what,
                    bytes / time.median / 1e9, bytes / time.max / 1e9, bytes / time.min / 1e9);
    };
    say("encode", bench::times_of([&] { e = encode_e4m3(t, 3, "bench"); }, runs));
    say("decode",
        bench::times_of([&] { decode_e4m3(e.codes, e.scales, back.mutable_view()); }, runs));
    say("memcpy",
        bench::times_of(
            [&] { std::memcpy(back.mutable_view().data, t.view().data, t.view().size_bytes()); },
            runs));
}
}  // namespace

int main(int argc, char** argv) {
    const bench::Arguments a(argc, argv, {{"features", "features"}, {"runs", "9"}});
    std::vector<TorchFile> files;
    for (const auto& f : feature_files(a.text("features"))) files.emplace_back(f);
    errors(files, feature::hidden_state, 1);
    errors(files, feature::aux_hidden_state, 1);
    errors(files, feature::aux_hidden_state, 3);
    speed(static_cast<std::size_t>(a.number("runs")));
    return 0;
}

// Writes the corpus' seeds that are messages: make_seeds tests/fuzz/corpus. (The others are files
// of tests/*/testdata.) Run it again when the protocol changes.
#include "eyas/core/checksum.hpp"
#include "eyas/sample/manifest_stream.hpp"
#include "eyas/store/pack_index.hpp"
#include "eyas/store/remote_protocol.hpp"
#include "eyas/transport/envelope.hpp"
#include "eyas/transport/frame.hpp"
#include "fuzz.hpp"

namespace {
using namespace eyas;
using detail::Operation;
using detail::WireWriter;

std::filesystem::path root;

void write(const std::string& target, const std::string& name, std::span<const std::byte> bytes) {
    eyas::create_directories(root / target);
    write_text_file(root / target / name,
                    {reinterpret_cast<const char*>(bytes.data()), bytes.size()});
}

/// A message as Feed::message() reads it.
void say(WireWriter& w, std::span<const std::byte> bytes) {
    w.put(static_cast<std::uint16_t>(bytes.size())).raw(bytes);
}
void request(WireWriter& w, const WireWriter& body,
             std::initializer_list<std::span<const std::byte>> parts = {}) {
    w.put(static_cast<std::uint8_t>(parts.size()));
    for (const auto& p : parts) say(w, p);
    say(w, body.bytes());
}
void answer(WireWriter& w, const WireWriter& body,
            std::initializer_list<std::span<const std::byte>> parts = {}) {
    WireWriter head;
    head.put(std::uint8_t{0}).raw(body.bytes());
    say(w, head.bytes());
    w.put(static_cast<std::uint8_t>(parts.size()));
    for (const auto& p : parts) say(w, p);
}
WireWriter operation(Operation o) {
    WireWriter w;
    w.put(static_cast<std::uint8_t>(o));
    return w;
}

const std::vector<std::byte> bytes(16, std::byte{3});
const detail::TensorRecord tensor{"x", DType::U8, Shape{16}, xxh3(bytes), 0};

void links() {
    const std::span<const std::byte> parts[] = {bytes, bytes};
    const auto plain = detail::Frame::encode({bytes}), with = detail::Frame::encode({bytes, parts});
    WireWriter several;
    several.raw(plain).raw(with).raw(bytes).raw(bytes).raw(plain);
    write("link", "several", several.bytes());

    WireWriter greeting, proof, client, server;
    greeting.put(detail::Handshake::version).raw(detail::Id128{}).raw(detail::Id128{});
    proof.put(std::uint8_t{1}).raw(detail::Mac{});
    say(client, greeting.bytes());  // as a client says it
    client.put(std::uint8_t{0});
    say(client, detail::Mac{});
    write("handshake", "client", client.bytes());
    greeting.put(std::uint8_t{0});
    say(server, greeting.bytes());
    server.put(std::uint8_t{0});
    say(server, proof.bytes());
    write("handshake", "server", server.bytes());
    write("handshake", "request", detail::Envelope::request({}, 0, bytes).bytes());
    write("handshake", "error",
          detail::Envelope::reply({}, 0, DataError("what", "where", "remedy")).bytes());
}

void records() {
    const auto record = [](const char* name, std::uint8_t which, const auto& fill) {
        WireWriter w;
        w.put(which);
        fill(w);
        write("pool_messages", name, w.bytes());
    };
    record("key", 0, [](WireWriter& w) { detail::write_key(w, {"a", 1, "disagg://eyas/a"}); });
    record("opened", 1, [](WireWriter& w) {
        detail::OpenedRecord{.lease = 1, .tensors = {tensor}, .file_bytes = 64}.write(w);
    });
    record("put", 2, [](WireWriter& w) { detail::PutRecord{1, "a", {tensor}}.write(w); });
    record("objects", 3, [](WireWriter& w) {
        detail::write_objects(w, {{{"a", 1, ""}, 16, 0.5}, {{"b", 2, ""}, 16, 1.5}});
    });
}

void services() {
    WireWriter w;
    auto open = operation(Operation::Open), read = operation(Operation::Read),
         close = operation(Operation::Close), put = operation(Operation::Put),
         erase = operation(Operation::Erase), uri = operation(Operation::Uri);
    for (auto* o : {&open, &erase, &uri}) detail::write_key(*o, {"a", 1, ""});
    read.put(std::uint64_t{0}).put(std::uint32_t{1}).put(std::uint32_t{0});
    close.put(std::uint32_t{1}).put(std::uint64_t{0});
    detail::PutRecord{7, "a", {tensor}}.write(put);
    for (const auto* o : {&open, &read, &close}) request(w, *o);
    request(w, put, {bytes});
    for (const auto* o : {&uri, &open, &erase}) request(w, *o);
    request(w, operation(Operation::Objects));
    write("pool_service", "all", w.bytes());

    WireWriter opened, tensors, list, objects, text, lost, generation;
    const auto client = [](std::uint8_t choice) {
        WireWriter c;
        c.put(choice);
        return c;
    };
    detail::OpenedRecord{.lease = 1, .tensors = {tensor}}.write(opened);
    auto reading = client(0), listing = client(1), naming = client(2), putting = client(3);
    answer(reading, opened);
    tensors.put(std::uint8_t{1});
    answer(reading, tensors, {bytes});
    write("pool_client", "read", reading.bytes());
    auto again = client(0);  // a pool that forgot the lease
    answer(again, opened);
    lost.put(std::uint8_t{0});
    answer(again, lost);
    answer(again, opened);
    answer(again, tensors, {bytes});
    write("pool_client", "read_again", again.bytes());
    detail::write_objects(list, {{{"a", 1, ""}, 16, 0.5}});
    objects.put(std::uint64_t{1});
    answer(listing, objects, {list.bytes()});
    write("pool_client", "objects", listing.bytes());
    text.text("memory://a");
    answer(naming, text);
    write("pool_client", "uri", naming.bytes());
    generation.put(std::int64_t{1});
    answer(putting, generation);
    answer(putting, text);
    write("pool_client", "put", putting.bytes());
}
void packs() {
    using detail::PackedFeature;
    const PackedFeature plain{.name = "input_ids", .dtype = DType::I64, .shape = {2}};
    PackedFeature scaled{.name = "hidden_state", .dtype = DType::BF16, .shape = {1, 2, 4}};
    scaled.encoding = detail::Encoding::ScaledE4M3;
    scaled.groups = 1;
    std::vector<detail::PackedSample> samples{{"a", {plain, scaled}}, {"b", {plain}}};
    constexpr std::size_t index_bytes = 512;
    std::uint64_t at = index_bytes;
    const auto place = [&](detail::PackedRange& range, std::uint64_t size) {
        range = {at, size, 0};
        at += (size + 63) / 64 * 64;
    };
    for (auto& s : samples)
        for (auto& f : s.features) {
            const auto elements = static_cast<std::uint64_t>(f.shape.elements());
            place(f.data, elements * size_of(f.stored_dtype()));
            if (f.groups > 0)
                place(f.scales, static_cast<std::uint64_t>(f.scale_shape().elements()) * 4);
        }
    auto data = detail::write_pack_index(samples, 7, at, index_bytes);
    data.resize(at);
    write("pack_index", "two", data);
}

void streams() {
    SampleRef ref{.sample_id = "run:00000000", .run_id = "run"};
    ref.feature_store_uri = "disagg://store/run:00000000";
    ref.metadata["generation"] = 1;
    std::string text = R"({"stream_id": "0123", "schema_version": 1, "producer": "p"})";
    text += "\n" + ref_to_json(ref).dump() + "\n";
    const auto seed = [&](const char* name, const std::string& last) {
        const auto whole = text + last;
        write("manifest_stream", name, std::as_bytes(std::span(whole.data(), whole.size())));
    };
    seed("open", "{\"sample_id\": \"torn");
    seed("finished", R"({"end": true, "refs": 1})");
    seed("failed", R"({"failed": "disk full", "refs": 1})");
}
}  // namespace

int main(int count, char** arguments) {
    if (count != 2) return 1;
    root = arguments[1];
    links();
    records();
    services();
    packs();
    streams();
    return 0;
}

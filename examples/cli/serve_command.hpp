#pragma once
#include <functional>

#include "command.hpp"
#include "eyas/core/open_files.hpp"
#include "eyas/store/memory.hpp"
#include "eyas/store/pool_service.hpp"
#include "stores.hpp"

namespace eyas::cli {

/// A store that other machines reach without a shared file system.
class ServeCommand : public Command {
public:
    explicit ServeCommand(CLI::App& parent)
        : Command(parent, "serve",
                  "pool: serve a store to other processes until Ctrl-C; commands name it as "
                  "--store ADDRESS") {
        until_stopped_ = true;
        app_.add_option("--store", store_.uri,
                        "disagg:DIR?store_id=NAME, file:DIR, packed:DIR, or memory:NAME (gone with "
                        "this process)")
            ->required();
        app_.add_option("--listen", addresses_,
                        "eyas+tcp://HOST:PORT (port 0: any), eyas+ucx://HOST:PORT, "
                        "eyas+unix:///PATH; several may be "
                        "given, with commas")
            ->delimiter(',')
            ->capture_default_str();
        app_.add_option("--quota", quota_, "bytes that the store may hold; 0: no limit");
        app_.add_option("--max-age", max_age_,
                        "seconds after which a sample that nobody holds is freed; 0: never");
        app_.add_option("--report-interval", report_interval_, "seconds between lines; 0: none")
            ->capture_default_str();
    }

private:
    /// Serves as long as it lives: `sessions` holds the server, whose type is the transport's.
    struct Listening {
        std::string address;
        std::function<std::size_t()> sessions;
    };

    OrderedJson run() override {
        raise_open_files();
        auto policy = store_.policy();
        if (quota_ > 0) policy.quota_bytes = quota_;
        const auto uri = parse_store_uri(store_.uri);
        if (uri.scheme == Memory::scheme) {
            Store<Memory> store({.store_id = uri.path.string()}, policy);
            return serve(store);
        }
        return with_files(uri, policy,
                          "Serve disagg:DIR?store_id=NAME, file:DIR, packed:DIR or memory:NAME",
                          [&](auto& store) { return serve(store); });
    }

    template <class S>
    OrderedJson serve(S& store) {
        PoolService service(store);
        std::vector<Listening> listening;
        OrderedJson addresses = OrderedJson::array();
        for (const auto& text : addresses_) {
            const auto address = parse_address(text);
            refuse_open(address, store.policy());
            listening.push_back(listen(address, service, store.policy().auth_token));
            addresses.push_back(listening.back().address);
            std::printf("serving %s on %s\n", store_.uri.c_str(), listening.back().address.c_str());
        }
        std::fflush(stdout);
        watch(store, service, listening);
        listening.clear();
        return {{"addresses", addresses}, {"bytes_sent", service.bytes_sent()}};
    }

    /// A server of whatever transport the address asked for.
    template <class Service>
    static Listening listen(const Address& address, Service& service, const std::string& token) {
        return with_transport(address, [&](auto transport) {
            using T = typename decltype(transport)::type;
            auto server = std::shared_ptr(T().serve(address, service, {.auth_token = token}));
            return Listening{server->address().text(), [server] { return server->sessions(); }};
        });
    }

    template <class S>
    void watch(S& store, const PoolService<S>& service,
               const std::vector<Listening>& listening) const {
        using Clock = std::chrono::steady_clock;
        auto next = Clock::now() + std::chrono::seconds(report_interval_);
        auto collect = Clock::now();
        while (!stop_requested()) {
            std::this_thread::sleep_for(std::chrono::milliseconds(50));
            if (max_age_ > 0 && Clock::now() >= collect) {
                store.collect(std::chrono::seconds(max_age_));
                collect = Clock::now() + std::chrono::seconds(1);
            }
            if (report_interval_ == 0 || Clock::now() < next) continue;
            next += std::chrono::seconds(report_interval_);
            std::size_t sessions = 0;
            for (const auto& l : listening) sessions += l.sessions();
            const auto h = store.health();
            std::printf("%llu samples, %s; %zu clients hold %llu leases; sent %s\n",
                        static_cast<unsigned long long>(h.resident_objects),
                        bytes_text(static_cast<double>(h.resident_bytes)).c_str(), sessions,
                        static_cast<unsigned long long>(service.leases()),
                        bytes_text(static_cast<double>(service.bytes_sent())).c_str());
            std::fflush(stdout);
        }
    }

    static void refuse_open(const Address& a, const StorePolicy& policy) {
        const bool here = a.scheme == "unix" || a.host == "localhost" || a.host == "::1" ||
                          a.host.starts_with("127.");
        if (!here && policy.auth_token.empty())
            throw ContractError("other machines could read and write the store without a token",
                                a.text(), "Set DISAGG_AUTH_TOKEN here and for the clients");
    }

    StoreArguments store_;
    std::vector<std::string> addresses_{"eyas+tcp://127.0.0.1:7411"};
    std::uint64_t quota_ = 0;
    std::int64_t max_age_ = 0, report_interval_ = 60;
};

}  // namespace eyas::cli

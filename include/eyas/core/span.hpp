#pragma once
#include <cstdint>
#include <vector>

namespace eyas {

/// Hears what the threads of a run do, and when: spans of time with names, which begin and end on
/// the thread that does the work, one within another. Called by any thread; whoever is told of
/// spans outlives all of them.
class SpanListener {
public:
    enum class Lane { Trainer, Exchange, Writer };  // which of a trainer's threads it is

    SpanListener() = default;
    SpanListener(const SpanListener&) = delete;
    SpanListener& operator=(const SpanListener&) = delete;
    virtual ~SpanListener() = default;

    /// `name`: a literal; `number` follows it where it is not negative.
    virtual void begin(Lane lane, const char* name, std::int64_t number) noexcept = 0;
    virtual void end(Lane lane, const char* name, std::int64_t number) noexcept = 0;
};

/// Lasts as long as this lives. Without a listener it does nothing.
class Span {
public:
    Span(SpanListener* listener, SpanListener::Lane lane, const char* name,
         std::int64_t number = -1)
        : listener_(listener), lane_(lane), name_(name), number_(number) {
        if (listener_) listener_->begin(lane_, name_, number_);
    }
    Span(const Span&) = delete;
    Span& operator=(const Span&) = delete;
    ~Span() {
        if (listener_) listener_->end(lane_, name_, number_);
    }

private:
    SpanListener* listener_;
    SpanListener::Lane lane_;
    const char* name_;
    std::int64_t number_;
};

/// Tells several listeners, which outlive it. They are added before the first span begins.
class SpanListeners final : public SpanListener {
public:
    void add(SpanListener& listener) { all_.push_back(&listener); }

    void begin(Lane lane, const char* name, std::int64_t number) noexcept override {
        for (auto* listener : all_) listener->begin(lane, name, number);
    }
    void end(Lane lane, const char* name, std::int64_t number) noexcept override {
        for (auto* listener : all_) listener->end(lane, name, number);
    }

private:
    std::vector<SpanListener*> all_;
};

}  // namespace eyas

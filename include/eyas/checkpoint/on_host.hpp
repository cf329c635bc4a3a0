#pragma once
#include <cstddef>
#include <filesystem>
#include <utility>
#include <vector>

#include "eyas/checkpoint/checkpoint.hpp"
#include "eyas/device/transfer.hpp"

namespace eyas {

namespace detail {

/// What a checkpoint consists of where the host can read and write it: the live model and optimizer
/// themselves, or copies of them where their device has memory of its own. Keeps references to the
/// device and to what the content refers to. One thread.
template <Device D>
class ContentOnHost {
public:
    /// `gathered`: the optimizer's state lies in the host's memory already.
    ContentOnHost(const D& device, CheckpointContent live, bool gathered = false)
        : device_(device),
          live_(std::move(live)),
          parameters_(live_.parameters.begin(), live_.parameters.end()),
          optimizer_(live_.optimizer) {
        if (!device.memory()) return;
        for (auto& p : parameters_) p.value = copied(p.value);
        if (gathered) return;
        for (auto& b : optimizer_) {
            const auto twin = live_.parameter_at(b.buffer);
            b.buffer = twin < parameters_.size() ? parameters_[twin].value : copied(b.buffer);
        }
    }

    CheckpointContent content() const {
        return {parameters_, live_.vocab_map, live_.config, optimizer_};
    }

    /// After somebody wrote through content(), where nothing was gathered: the live ones become
    /// what it is.
    void put_back() const {
        if (!device_.memory()) return;
        for (std::size_t i = 0; i < parameters_.size(); ++i)
            upload(parameters_[i].value, live_.parameters[i].value);
        for (std::size_t i = 0; i < optimizer_.size(); ++i)
            upload(optimizer_[i].buffer, live_.optimizer[i].buffer);
    }

private:
    MutableTensorView copied(const MutableTensorView& v) {
        copies_.push_back(on_host(device_, v));
        return copies_.back().mutable_view();
    }
    void upload(const TensorView& from, const MutableTensorView& to) const {
        device_.upload(from.data, to.data, from.size_bytes());
    }

    const D& device_;
    CheckpointContent live_;
    std::vector<Parameter> parameters_;
    std::vector<NamedBuffer> optimizer_;
    std::vector<Tensor> copies_;
};

/// What there is of a model without an optimizer.
template <class M>
ContentOnHost<typename M::DeviceType> weights_on_host(M& model) {
    return {model.device(), {model.parameters(), model.vocab_map(), model.config(), {}}};
}

}  // namespace detail

/// load_weights() into a model, wherever its parameters lie.
template <class M>
void load_weights_into(M& model, const std::filesystem::path& path) {
    const auto host = detail::weights_on_host(model);
    load_weights(path, host.content().parameters, model.vocab_map());
    host.put_back();
}

}  // namespace eyas

#pragma once
#include <stdexcept>
#include <string>
#include <utility>

namespace eyas {

/// Base of every error that eyas throws. The message reads "where: what. remedy": what is wrong,
/// where it is (file, tensor, field, offset) and what the reader can do about it.
class Error : public std::runtime_error {
public:
    Error(const std::string& what, const std::string& where, const std::string& remedy)
        : std::runtime_error(where + ": " + what + ". " + remedy) {}

    /// Adds to the message what failed besides: for who catches it by reference and lets it go on
    /// as what it is, `throw;`. No other thread may be reading it.
    void add(const std::string& besides) {
        std::runtime_error::operator=(
            std::runtime_error(std::string(what()) + ". Besides, " + besides));
    }
};

/// The caller's fault: a wrong argument, a call out of order, options that do not fit together.
class ContractError : public Error {
    using Error::Error;
};

/// Bad bytes: truncated, corrupt, or not what the format or the consumer requires.
class DataError : public Error {
    using Error::Error;
};

/// A peer that is gone, silent past its deadline, or speaks another protocol.
class TransportError : public Error {
    using Error::Error;
};

/// The process that held the data was reached before and is gone, and what only it held with it.
class OwnerLostError : public TransportError {
    using TransportError::TransportError;
};

/// Memory, disk, quota or permission: the machine refused.
class ResourceError : public Error {
    using Error::Error;
};

/// A reference to a generation that is no longer the current one, or was consumed.
class StaleReferenceError : public ContractError {
    using ContractError::ContractError;
};

/// A missing or wrong credential.
class AuthenticationError : public ContractError {
    using ContractError::ContractError;
};

}  // namespace eyas

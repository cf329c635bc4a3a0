#pragma once
#include <cstddef>
#include <exception>
#include <new>
#include <string>
#include <tuple>
#include <utility>

#include "eyas/core/error.hpp"

namespace eyas::detail {

/// Every type of error, derived ones before their bases.
using ErrorTypes = std::tuple<StaleReferenceError, AuthenticationError, ContractError, DataError,
                              OwnerLostError, TransportError, ResourceError>;
inline constexpr std::size_t error_types = std::tuple_size_v<ErrorTypes>;

/// Which of them an exception is; for any other, such as want of memory, ResourceError.
inline std::size_t error_type_of(const std::exception& e) {
    return [&]<std::size_t... I>(std::index_sequence<I...>) {
        std::size_t type = error_types - 1;
        (void)((dynamic_cast<const std::tuple_element_t<I, ErrorTypes>*>(&e) && (type = I, true)) ||
               ...);
        return type;
    }
    (std::make_index_sequence<error_types>());
}

/// An error of that type; of the last one for an unknown number.
inline std::exception_ptr make_error(std::size_t type, const std::string& what,
                                     const std::string& where, const std::string& remedy) {
    return [&]<std::size_t... I>(std::index_sequence<I...>) {
        std::exception_ptr error;
        (void)((I == type && (error = std::make_exception_ptr(
                                  std::tuple_element_t<I, ErrorTypes>(what, where, remedy)),
                              true)) ||
               ...);
        return error ? error
                     : std::make_exception_ptr(
                           std::tuple_element_t<error_types - 1, ErrorTypes>(what, where, remedy));
    }
    (std::make_index_sequence<error_types>());
}

}  // namespace eyas::detail

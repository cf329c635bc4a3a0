#pragma once
#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "eyas/core/error.hpp"
#include "eyas/core/file.hpp"
#include "eyas/report/page_script.hpp"
#include "eyas/report/page_style.hpp"
#include "eyas/report/run_record.hpp"

namespace eyas {

namespace detail {

/// JSON that is safe inside a script element: no `<` is left, so nothing can end it.
inline std::string embedded_json(const OrderedJson& value) {
    std::string text;
    for (const char c : value.dump(-1, ' ', true, OrderedJson::error_handler_t::replace)) {
        if (c == '<')
            text += "\\u003c";
        else
            text += c;
    }
    return text;
}

}  // namespace detail

/// One HTML page that needs nothing else: the curves of all runs over each other, final figures,
/// where their configurations differ, memory plans. Throws ContractError for no runs.
inline std::string report_page(std::span<const RunRecord> runs) {
    if (runs.empty()) throw ContractError("no runs", "report_page", "Give at least one");
    OrderedJson data = OrderedJson::array();
    for (const auto& r : runs)
        data.push_back(
            {{"name", r.name}, {"about", r.about}, {"logged", r.logged}, {"held_out", r.held_out}});
    return std::string("<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n") +
           "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n" +
           "<link rel=\"icon\" href=\"data:,\">\n<title>eyas report</title>\n<style>\n" +
           detail::page_style + "</style>\n</head>\n<body>\n<main></main>\n" +
           "<svg id=\"names\" hidden></svg>\n" + "<script type=\"application/json\" id=\"runs\">" +
           detail::embedded_json(data) + "</script>\n<script>\n" + detail::page_script +
           "</script>\n</body>\n</html>\n";
}

}  // namespace eyas

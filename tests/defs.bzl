"""eyas_test: a Catch2 test over the whole library. tests_together: a room's tests in one program."""

_TOGETHER = "together"

def _unique(lists):
    return {item: None for items in lists for item in items}.keys()

def eyas_test(name, srcs, deps = [], data = [], size = "small", tags = [], group = "", alone = False, **kwargs):
    """A test with Catch2's main. Runs with the workspace root as working directory.

    Its cases run in a program of the room's (tests_together), which is compiled in a fraction of the time; the target
    itself is one to be asked for by name. `alone`: in a program of its own, as tests with the tag "plain" are: where a
    process must not have done anything else. `group`: of tests that need libraries of their own.
    """
    alone = alone or "plain" in tags
    native.cc_test(
        name = name,
        srcs = srcs,
        data = data,
        size = size,
        tags = tags + ([] if alone else ["manual", _TOGETHER, "group=" + group]),
        deps = deps + [
            "//:eyas",
            "//tests:leaks",
            "@catch2",
            "@catch2//:main",
        ],
        **kwargs
    )

def _group_of(rule):
    for tag in rule["tags"]:
        if tag.startswith("group="):
            group = tag[len("group="):]
            break
    return (group + "_" if group else "") + ("thread_tests" if "threads" in rule["tags"] else "tests")

def tests_together():
    """The eyas_tests above it in programs: tests, thread_tests (those with the tag "threads"), and GROUP_tests."""
    groups = {}
    for rule in native.existing_rules().values():
        if rule["kind"] == "cc_test" and _TOGETHER in rule["tags"]:
            groups.setdefault(_group_of(rule), []).append(rule)
    for name, rules in groups.items():
        srcs = _unique([rule["srcs"] for rule in rules])
        native.genrule(
            name = name + "_source",
            testonly = True,
            srcs = srcs,
            outs = [name + ".cc"],
            cmd = "$(location //tests:together.sh) $(SRCS) >$@",
            tools = ["//tests:together.sh"],
        )
        native.cc_library(
            name = name + "_texts",
            testonly = True,
            textual_hdrs = srcs,
        )
        native.cc_test(
            name = name,
            size = "large",
            timeout = "eternal",  # all of the room's, on a slow machine that has other work
            srcs = [name + ".cc"],
            copts = _unique([rule["copts"] for rule in rules]),
            data = _unique([rule["data"] for rule in rules]),
            tags = ["threads"] if name.endswith("thread_tests") else [],
            deps = _unique([rule["deps"] for rule in rules] + [[":" + name + "_texts"]]),
        )

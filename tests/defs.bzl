"""eyas_test: a Catch2 test over the whole library."""

def eyas_test(name, srcs, deps = [], data = [], size = "small", **kwargs):
    """A cc_test with Catch2's main. Runs with the workspace root as working directory."""
    native.cc_test(
        name = name,
        srcs = srcs,
        data = data,
        size = size,
        deps = deps + [
            "//:eyas",
            "//tests:leaks",
            "@catch2",
            "@catch2//:main",
        ],
        **kwargs
    )

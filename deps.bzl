"""What a workspace that uses @eyas calls from its own WORKSPACE."""

load("//tools/system:debian_bazel.bzl", "coverage_tools_shim", "debian_tree", "rules_cc_shim")
load("//tools/system:system_library.bzl", "pip_headers", "system_library")

def _maybe(rule, name, **kw):
    if not native.existing_rule(name):
        rule(name = name, **kw)

def eyas_debian_bazel():
    """Only for Debian's bazel-bootstrap: call it first, or not at all."""
    _maybe(rules_cc_shim, "rules_cc")
    _maybe(coverage_tools_shim, "remote_coverage_tools")
    _maybe(debian_tree, "rules_java", path = "/usr/share/bazel/rules/java", package = "bazel-rules-java")
    _maybe(debian_tree, "rules_proto", path = "/usr/share/bazel/rules/proto", package = "bazel-rules-proto")
    _maybe(debian_tree, "platforms", path = "/usr/share/bazel/tools/platforms", package = "bazel-platforms")

def eyas_dependencies():
    """Third-party libraries. A library that is absent becomes an incompatible target."""
    lib = system_library
    _maybe(lib, "nlohmann_json", headers = ["nlohmann"], package = "nlohmann-json3-dev", build_file = "@eyas//third_party/nlohmann_json:nlohmann_json.BUILD")
    _maybe(lib, "catch2", headers = ["catch2"], package = "catch2", build_file = "@eyas//third_party/catch2:catch2.BUILD")
    _maybe(lib, "ucx", headers = ["ucp", "ucs", "uct", "ucm"], package = "libucx-dev", build_file = "@eyas//third_party/ucx:ucx.BUILD")
    _maybe(lib, "onednn", headers = ["oneapi", "dnnl.h", "dnnl.hpp", "dnnl_config.h", "dnnl_types.h", "dnnl_version.h", "dnnl_debug.h"], package = "libdnnl-dev", build_file = "@eyas//third_party/onednn:onednn.BUILD")
    _maybe(lib, "gloo", headers = ["gloo"], package = "libgloo-dev", build_file = "@eyas//third_party/gloo:gloo.BUILD")
    _maybe(lib, "deflate", headers = ["libdeflate.h"], package = "libdeflate-dev", build_file = "@eyas//third_party/deflate:deflate.BUILD")
    _maybe(lib, "xxhash", headers = ["xxhash.h"], package = "libxxhash-dev", build_file = "@eyas//third_party/xxhash:xxhash.BUILD")
    _maybe(lib, "openssl", headers = ["openssl"], package = "libssl-dev", build_file = "@eyas//third_party/openssl:openssl.BUILD")
    _maybe(lib, "sqlite3", headers = ["sqlite3.h"], package = "libsqlite3-dev", build_file = "@eyas//third_party/sqlite3:sqlite3.BUILD")
    _maybe(lib, "cli11", headers = ["CLI"], package = "libcli11-dev", build_file = "@eyas//third_party/cli11:cli11.BUILD")

    cuda = ["/usr/local/cuda", "/opt/cuda"]
    _maybe(lib, "cuda", prefixes = cuda, prefix_env = "CUDA_HOME", headers = ["cuda_runtime.h", "cublasLt.h"], whole = True, package = "the CUDA toolkit (or set CUDA_HOME)", build_file = "@eyas//third_party/cuda:cuda.BUILD")
    _maybe(lib, "nccl", prefixes = cuda + ["/usr"], prefix_env = "NCCL_HOME", headers = ["nccl.h"], libs = ["libnccl.so.2"], package = "NCCL (or set NCCL_HOME)", build_file = "@eyas//third_party/nccl:nccl.BUILD")
    _maybe(lib, "cudnn", prefixes = cuda + ["/usr"], prefix_env = "CUDNN_HOME", headers = ["cudnn.h"], extra_headers = ["cudnn*.h"], libs = ["libcudnn.so.9"], package = "cuDNN 9 (or set CUDNN_HOME)", build_file = "@eyas//third_party/cudnn:cudnn.BUILD")
    _maybe(pip_headers, "cudnn_frontend", distribution = "nvidia-cudnn-frontend", at_least = "1.18", setup = "tools/cuda/setup.sh", header = "cudnn_frontend.h", build_file = "@eyas//third_party/cudnn_frontend:cudnn_frontend.BUILD")

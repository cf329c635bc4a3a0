"""What the program eyas is made of, for those who build it in another way."""

load("@cudnn//:config.bzl", CUDNN_LIBRARY = "PRESENT")
load("@cudnn_frontend//:config.bzl", CUDNN_FRONTEND = "PRESENT")
load("@gloo//:config.bzl", GLOO = "PRESENT")
load("@nccl//:config.bzl", NCCL = "PRESENT")
load("@ucx//:config.bzl", UCX = "PRESENT")

CLI_DEFINES = (["EYAS_CLI_GLOO"] if GLOO else []) + (["EYAS_CLI_UCX"] if UCX else [])

CLI_DEPS = [
    "//:ledger",
    "//:transport",
    "@cli11",
] + (["//:gloo"] if GLOO else []) + (["//:ucx"] if UCX else [])

# With --device cuda, besides; of several processes where NCCL is there, with --attention cudnn where cuDNN and the
# headers of its frontend are.
CUDNN = CUDNN_LIBRARY and CUDNN_FRONTEND

CLI_CUDA_DEFINES = ["EYAS_CLI_CUDA"] + (["EYAS_CLI_NCCL"] if NCCL else []) + (["EYAS_CLI_CUDNN"] if CUDNN else [])

# Without the libraries themselves, which a test may replace.
CLI_CUDA_CODE = ["//examples/cli:cudnn_attention"] if CUDNN else []

CLI_CUDA_DEPS = CLI_CUDA_CODE + ["//:nccl" if NCCL else "//:cuda"] + (["//:cudnn"] if CUDNN else [])

"""What the program eyas is made of, for those who build it in another way."""

load("@gloo//:config.bzl", GLOO = "PRESENT")
load("@nccl//:config.bzl", NCCL = "PRESENT")
load("@ucx//:config.bzl", UCX = "PRESENT")

CLI_DEFINES = (["EYAS_CLI_GLOO"] if GLOO else []) + (["EYAS_CLI_UCX"] if UCX else [])

CLI_DEPS = [
    "//:ledger",
    "//:transport",
    "@cli11",
] + (["//:gloo"] if GLOO else []) + (["//:ucx"] if UCX else [])

# With --device cuda, besides; of several processes where NCCL is there.
CLI_CUDA_DEFINES = ["EYAS_CLI_CUDA"] + (["EYAS_CLI_NCCL"] if NCCL else [])

CLI_CUDA_DEPS = ["//:nccl" if NCCL else "//:cuda"]

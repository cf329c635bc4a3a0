#pragma once
// cudnn-frontend without its JSON, which would change how nlohmann/json writes every float of the
// program, and whatever else was included before: BLOCK_SIZE is a macro of <linux/fs.h>.
#ifndef CUDNN_FRONTEND_SKIP_JSON_LIB
#define CUDNN_FRONTEND_SKIP_JSON_LIB
#endif
#pragma push_macro("BLOCK_SIZE")
#pragma push_macro("NLOHMANN_JSON_SERIALIZE_ENUM")
#pragma push_macro("NLOHMANN_DEFINE_TYPE_INTRUSIVE")
#undef BLOCK_SIZE
#undef NLOHMANN_JSON_SERIALIZE_ENUM
#undef NLOHMANN_DEFINE_TYPE_INTRUSIVE
#include <cudnn.h>
#include <cudnn_frontend.h>
#pragma pop_macro("NLOHMANN_DEFINE_TYPE_INTRUSIVE")
#pragma pop_macro("NLOHMANN_JSON_SERIALIZE_ENUM")
#pragma pop_macro("BLOCK_SIZE")

static_assert(CUDNN_MAJOR >= 9, "attention by cuDNN needs cuDNN 9");
static_assert(CUDNN_FRONTEND_VERSION >= 11800, "take cudnn-frontend 1.18 (tools/cuda/setup.sh)");

#pragma once

/// Every op that a device of blocks computes in its own way. Include it before such a device meets
/// a model: without it the loops of the host would be taken.
#include "eyas/ops/block/attention.hpp"
#include "eyas/ops/block/distillation_rows.hpp"
#include "eyas/ops/block/elementwise.hpp"
#include "eyas/ops/block/load.hpp"
#include "eyas/ops/block/rms_norm.hpp"

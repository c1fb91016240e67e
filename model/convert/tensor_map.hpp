#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "io/dtype.hpp"
#include "model/convert/model_source.hpp"
#include "model/weights.hpp"

namespace penstock::model {

// Which tensor of the source fills each of `specs`. A tied head is filled by the embedding.
// Throws ModelError, which names tensors: missing (all of them in one message), misshapen, and
// such as the model has no place for.
std::vector<std::size_t> map_tensors(const std::string& path, const ModelSource& source,
                                     const std::vector<WeightSpec>& specs);

// The dtype that keeps the source's matrices: their own when they agree, f32 when they do not,
// bf16 when any is quantized.
io::DType source_dtype(const ModelSource& source, const std::vector<WeightSpec>& specs,
                       const std::vector<std::size_t>& map);

}  // namespace penstock::model

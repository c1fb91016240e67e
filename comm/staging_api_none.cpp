#include "comm/staging_api.hpp"

namespace penstock::comm {

std::unique_ptr<StagingApi> make_staging_api() { return nullptr; }

}  // namespace penstock::comm

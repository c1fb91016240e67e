#pragma once

#include <functional>
#include <nlohmann/json.hpp>
#include <string_view>

#include "comm/link.hpp"

// What the stages of all replicas do together before and after the work. Who does not come is named
// when its work has not moved (Control::beat) for endpoint.watchdog.
namespace penstock::jobs {

// Throws comm::AgreeError on all members unless `mine` is the same on all; the keys are the names
// that the user knows the values by.
void agree_on_equal(comm::Endpoint& endpoint, const nlohmann::ordered_json& mine);

// Runs `body` and agrees on its outcome: an exception on any member ends in comm::AgreeError on
// all, with that exception's text and who it was.
void agree_on(comm::Endpoint& endpoint, std::string_view what, const std::function<void()>& body);

}  // namespace penstock::jobs

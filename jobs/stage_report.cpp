#include "jobs/stage_report.hpp"

namespace penstock::jobs {

void to_json(nlohmann::json& json, const StageReport& report) {
  json = {{"rank", report.rank},
          {"host", report.host},
          {"threads", report.threads},
          {"replica", report.replica},
          {"stage", report.stage},
          {"begin", report.layer_begin},
          {"end", report.layer_end},
          {"predicted", report.predicted},
          {"weights", report.weight_bytes},
          {"kv", report.kv_bytes},
          {"read", report.bytes_read},
          {"loaded", report.bytes_loaded},
          {"load_seconds", report.load_seconds},
          {"copy", report.copy},
          {"warning", report.warning},
          {"gpu", report.gpu},
          {"gpu_uuid", report.gpu_uuid},
          {"gpu_memory", report.gpu_memory_bytes}};
}

void from_json(const nlohmann::json& json, StageReport& report) {
  json.at("rank").get_to(report.rank);
  json.at("host").get_to(report.host);
  json.at("threads").get_to(report.threads);
  json.at("replica").get_to(report.replica);
  json.at("stage").get_to(report.stage);
  json.at("begin").get_to(report.layer_begin);
  json.at("end").get_to(report.layer_end);
  json.at("predicted").get_to(report.predicted);
  json.at("weights").get_to(report.weight_bytes);
  json.at("kv").get_to(report.kv_bytes);
  json.at("read").get_to(report.bytes_read);
  json.at("loaded").get_to(report.bytes_loaded);
  json.at("load_seconds").get_to(report.load_seconds);
  json.at("copy").get_to(report.copy);
  json.at("warning").get_to(report.warning);
  json.at("gpu").get_to(report.gpu);
  json.at("gpu_uuid").get_to(report.gpu_uuid);
  json.at("gpu_memory").get_to(report.gpu_memory_bytes);
}

}  // namespace penstock::jobs

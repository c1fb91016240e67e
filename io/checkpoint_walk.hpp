#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "io/checkpoint.hpp"
#include "io/checkpoint_hdf5.hpp"
#include "io/file.hpp"

namespace penstock::io {

// A checkpoint's file while its structure is read.
struct OpenFile {
  File raw;
  hdf5::Handle hdf5;
  const std::string& path() const { return raw.path(); }
};

// Guards the file, then opens it with HDF5, read-only.
OpenFile open_checkpoint_file(const std::string& path);

struct LinkInGroup {
  std::string name;
  bool external = false;
};
// In order of creation where the file keeps it, else by name.
std::vector<LinkInGroup> links_of(const OpenFile& file, hid_t group, const std::string& name);
std::vector<std::string> attribute_names(const OpenFile& file, hid_t object,
                                         const std::string& name);

// A dataset's place in its file.
struct Extent {
  std::vector<std::uint64_t> shape;
  std::uint64_t elements = 0;
  std::uint64_t storage_bytes = 0;  // what HDF5 says it stores
  std::uint64_t offset = 0;
  bool allocated = false;
};
// Throws FileError unless the bytes lie inside the file.
Extent extent_of(const OpenFile& file, hid_t dataset, const std::string& name);

// Finds all tensors below the root, also through external links to files in the same folder.
class TensorWalk {
 public:
  explicit TensorWalk(std::string folder) : folder_(std::move(folder)) {}
  struct Found {
    TensorInfo info;
    std::int64_t order = 0;
  };
  // All links of the root but /config, /tokenizer and /checksums.
  void run(const OpenFile& root, bool no_data);
  std::vector<Found>& tensors() { return tensors_; }
  std::map<std::string, OpenFile>& linked_files() { return linked_files_; }

 private:
  void visit_group(const OpenFile& file, hid_t group, const std::string& name, std::size_t depth);
  void visit_object(const OpenFile& file, const hdf5::Handle& object, const std::string& name,
                    std::size_t depth);
  void visit_external(const OpenFile& file, hid_t group, const std::string& link_name,
                      const std::string& name, std::size_t depth);
  void add_tensor(const OpenFile& file, hid_t dataset, const std::string& name);

  std::string folder_;
  const OpenFile* root_ = nullptr;
  bool no_data_ = false;
  std::vector<Found> tensors_;
  std::map<std::string, OpenFile> linked_files_;
  std::set<std::pair<std::string, haddr_t>> seen_;
};

}  // namespace penstock::io

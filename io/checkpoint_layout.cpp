#include "io/checkpoint_layout.hpp"

#include <fmt/format.h>

#include <map>
#include <set>
#include <span>

#include "io/checkpoint_checksum.hpp"
#include "io/checkpoint_format.hpp"
#include "io/checkpoint_hdf5.hpp"
#include "io/error.hpp"
#include "io/utf8.hpp"

namespace penstock::io {
namespace {

using hdf5::Handle;

std::vector<std::string> split_name(const std::string& path, const std::string& name) {
  std::vector<std::string> parts;
  std::size_t first = 1;
  while (first <= name.size()) {
    const std::size_t last = std::min(name.find('/', first), name.size());
    parts.push_back(name.substr(first, last - first));
    first = last + 1;
  }
  bool good = !parts.empty() && parts.size() <= kMaxDepth && name[0] == '/' &&
              name.size() <= kMaxNameBytes && is_valid_utf8(name) &&
              name.find('\0') == std::string::npos;
  for (const std::string& part : parts) good = good && part != "" && part != "." && part != "..";
  if (!good || parts[0] == "config" || parts[0] == "tokenizer" || parts[0] == "checksums") {
    throw FileError(path, fmt::format("a tensor cannot be called {}", quoted(name)));
  }
  return parts;
}

void check_blob(const std::string& path, const Blob& blob, std::set<std::string>& names) {
  if (blob.name.empty() || blob.name == "." || blob.name == ".." || blob.name.size() > 255 ||
      blob.name.find('/') != std::string::npos || blob.name.find('\0') != std::string::npos ||
      !is_valid_utf8(blob.name) || !names.insert(blob.name).second) {
    throw FileError(path, fmt::format("/tokenizer cannot hold the name {}", quoted(blob.name)));
  }
  if (blob.bytes.size() > kMaxBlobBytes) {
    throw FileError(path, fmt::format("/tokenizer/{} has {} bytes, at most {} are allowed",
                                      blob.name, blob.bytes.size(), kMaxBlobBytes));
  }
}

// The file format of HDF5 1.8: readable by all tools, checksummed structure, no "open" mark that a
// killed writer leaves.
Handle write_access(const std::string& path) {
  Handle access = hdf5::file_access(path);
  hdf5::check(H5Pset_libver_bounds(access.get(), H5F_LIBVER_V18, H5F_LIBVER_V18), path,
              "cannot choose the HDF5 1.8 format");
  return access;
}

// Creates objects in one file. Everything compact and without time stamps: the structure stays
// small and equal inputs give equal bytes.
class Builder {
 public:
  Builder(const std::string& file_path, const std::string& path)
      : path_(path), group_plist_(new_plist(H5P_GROUP_CREATE)) {
    const Handle access = write_access(path);
    const Handle plist = new_plist(H5P_FILE_CREATE);
    file_ = hdf5::own(H5Fcreate(file_path.c_str(), H5F_ACC_TRUNC, plist.get(), access.get()),
                      H5Fclose, path, "cannot be created");
    groups_.emplace(
        "", hdf5::own(H5Gopen2(file_.get(), "/", H5P_DEFAULT), H5Gclose, path, "has no root"));
  }

  hid_t group(const std::string& name) {  // "/layers/0003", "" for the root
    if (const auto found = groups_.find(name); found != groups_.end()) return found->second.get();
    const std::size_t slash = name.rfind('/');
    const hid_t parent = group(name.substr(0, slash));
    Handle made = hdf5::own(
        H5Gcreate2(parent, name.c_str() + slash + 1, H5P_DEFAULT, group_plist_.get(), H5P_DEFAULT),
        H5Gclose, path_, fmt::format("cannot create the group {}", name));
    return groups_.emplace(name, std::move(made)).first->second.get();
  }

  void attribute(const std::string& group_name, const std::string& name, const Attribute& value) {
    hdf5::write_attribute(group(group_name), path_, name, value);
  }

  Handle dataset(const std::string& name, hid_t type, std::span<const std::uint64_t> shape,
                 H5D_alloc_time_t when) {
    const std::string what = fmt::format("cannot create {}", name);
    const Handle plist = new_plist(H5P_DATASET_CREATE);
    hdf5::check(H5Pset_layout(plist.get(), H5D_CONTIGUOUS), path_, what);
    hdf5::check(H5Pset_alloc_time(plist.get(), when), path_, what);
    hdf5::check(H5Pset_fill_time(plist.get(), H5D_FILL_TIME_NEVER), path_, what);
    const std::vector<hsize_t> extents(shape.begin(), shape.end());
    const Handle space =
        hdf5::own(H5Screate_simple(static_cast<int>(extents.size()), extents.data(), nullptr),
                  H5Sclose, path_, what);
    const std::size_t slash = name.rfind('/');
    return hdf5::own(H5Dcreate2(group(name.substr(0, slash)), name.c_str() + slash + 1, type,
                                space.get(), H5P_DEFAULT, plist.get(), H5P_DEFAULT),
                     H5Dclose, path_, what);
  }

  void bytes(const std::string& name, std::string_view content) {
    const std::uint64_t size = content.size();
    const Handle made = dataset(name, H5T_STD_U8LE, std::span(&size, 1), H5D_ALLOC_TIME_EARLY);
    if (content.empty()) return;
    hdf5::check(H5Dwrite(made.get(), H5T_STD_U8LE, H5S_ALL, H5S_ALL, H5P_DEFAULT, content.data()),
                path_, fmt::format("cannot write {}", name));
  }

  void close() {
    groups_.clear();
    if (!file_.reset()) hdf5::fail(path_, "cannot be written");
  }

 private:
  Handle new_plist(hid_t kind) const {
    Handle plist = hdf5::own(H5Pcreate(kind), H5Pclose, path_, "cannot set HDF5 up");
    bool good = H5Pset_obj_track_times(plist.get(), false) >= 0 &&
                H5Pset_attr_creation_order(plist.get(), H5P_CRT_ORDER_TRACKED) >= 0 &&
                H5Pset_attr_phase_change(plist.get(), kMaxAttributes, 0) >= 0;
    if (kind != H5P_DATASET_CREATE) {
      good = good && H5Pset_link_creation_order(plist.get(), H5P_CRT_ORDER_TRACKED) >= 0 &&
             H5Pset_link_phase_change(plist.get(), 65535, 0) >= 0;
    }
    if (!good) hdf5::fail(path_, "cannot set HDF5 up");
    return plist;
  }

  const std::string& path_;
  Handle group_plist_;
  Handle file_;
  std::map<std::string, Handle> groups_;
};

void write_header(Builder& builder, const CheckpointHeader& header) {
  builder.attribute("", "format", std::string(kFormatName));
  builder.attribute("", "schema", kSchema);
  builder.attribute("", "architecture", header.architecture);
  builder.attribute("", "source", header.source);
  builder.attribute("", "created_by", header.created_by);
  builder.attribute("", "dtype", std::string(to_string(header.dtype)));
  builder.attribute("", "no_data", std::int64_t{header.no_data});
  builder.attribute("", "digest", std::string(32, '0'));
  builder.group("/config");
  for (const NamedAttribute& field : header.config) {
    builder.attribute("/config", field.name, field.value);
  }
  if (!header.config_text.empty()) {
    builder.bytes(fmt::format("/config/{}", kConfigTextName), header.config_text);
  }
  builder.group("/tokenizer");
  for (const Blob& blob : header.tokenizer) builder.bytes("/tokenizer/" + blob.name, blob.bytes);
}

// Takes a dataset's storage by writing its first element.
std::uint64_t allocate(hid_t file, const std::string& path, const std::string& name) {
  const std::string what = fmt::format("cannot take the storage of {}", name);
  const Handle dataset = hdf5::own(H5Dopen2(file, name.c_str(), H5P_DEFAULT), H5Dclose, path, what);
  const Handle type = hdf5::own(H5Dget_type(dataset.get()), H5Tclose, path, what);
  const Handle space = hdf5::own(H5Dget_space(dataset.get()), H5Sclose, path, what);
  const hsize_t one = 1;
  const Handle element = hdf5::own(H5Screate_simple(1, &one, nullptr), H5Sclose, path, what);
  const std::vector<hsize_t> origin(kMaxRank, 0);
  hdf5::check(H5Sselect_elements(space.get(), H5S_SELECT_SET, 1, origin.data()), path, what);
  const std::uint64_t zero = 0;
  hdf5::check(H5Dwrite(dataset.get(), type.get(), element.get(), space.get(), H5P_DEFAULT, &zero),
              path, what);
  const haddr_t offset = H5Dget_offset(dataset.get());
  if (offset == HADDR_UNDEF || offset % kTensorAlignment != 0) hdf5::fail(path, what);
  return offset;
}

}  // namespace

void check_layout(const std::string& path, const CheckpointHeader& header,
                  const std::vector<TensorSpec>& tensors) {
  if (tensors.empty() || tensors.size() > kMaxTensors) {
    throw FileError(path,
                    fmt::format("{} tensors; 1 to {} can be stored", tensors.size(), kMaxTensors));
  }
  std::set<std::string> datasets;
  std::set<std::string> groups;
  std::uint64_t total = 0;
  for (const TensorSpec& tensor : tensors) {
    std::string name;
    for (const std::string& part : split_name(path, tensor.name)) {
      if (!name.empty()) groups.insert(name);
      name += "/" + part;
    }
    if (name != tensor.name || !datasets.insert(name).second) {
      throw FileError(path, fmt::format("tensor {} is declared twice", quoted(tensor.name)));
    }
    std::uint64_t size_bytes = 0;
    if (tensor.shape.empty() || tensor.shape.size() > kMaxRank ||
        !tensor_bytes(tensor, size_bytes) || size_bytes == 0 ||
        __builtin_add_overflow(total, size_bytes, &total) || total > INT64_MAX) {
      throw FileError(path, fmt::format("tensor {} has a shape that cannot be stored: [{}]",
                                        quoted(tensor.name), fmt::join(tensor.shape, ", ")));
    }
  }
  for (const std::string& name : datasets) {
    if (groups.contains(name)) {
      throw FileError(path, fmt::format("{} is both a tensor and a group", quoted(name)));
    }
  }
  std::set<std::string> names;
  std::uint64_t blob_bytes = 0;
  for (const Blob& blob : header.tokenizer) {
    check_blob(path, blob, names);
    blob_bytes += blob.bytes.size();
  }
  if (header.config_text.size() > kMaxBlobBytes || blob_bytes > kMaxBlobsBytes ||
      names.size() > kMaxBlobs || header.config.size() > kMaxAttributes) {
    throw FileError(path, "config or tokenizer are too large to be stored");
  }
  std::set<std::string> fields;
  for (const NamedAttribute& field : header.config) {
    if (field.name.empty() || !is_valid_utf8(field.name) ||
        field.name.find('\0') != std::string::npos || field.name.size() > kMaxNameBytes ||
        !fields.insert(field.name).second) {
      throw FileError(path, fmt::format("/config cannot hold the name {}", quoted(field.name)));
    }
  }
}

CheckpointLayout create_layout(const std::string& file_path, const std::string& path,
                               const CheckpointHeader& header,
                               const std::vector<TensorSpec>& tensors) {
  const hdf5::Session session;
  Builder builder(file_path, path);
  write_header(builder, header);
  CheckpointLayout layout;
  std::uint64_t blocks = 0;
  for (const TensorSpec& tensor : tensors) {
    std::uint64_t size_bytes = 0;
    tensor_bytes(tensor, size_bytes);
    blocks += count_blocks(size_bytes);
  }
  if (!header.no_data) {
    const std::uint64_t shape[] = {blocks, sizeof(BlockChecksum)};
    const Handle table = builder.dataset("/checksums", H5T_STD_U8LE, shape, H5D_ALLOC_TIME_EARLY);
    hdf5::write_attribute(table.get(), path, "algorithm", std::string(kChecksumAlgorithm));
    hdf5::write_attribute(table.get(), path, "block_bytes",
                          static_cast<std::int64_t>(kChecksumBlockBytes));
    layout.checksums_offset = H5Dget_offset(table.get());
  }
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    const Handle dataset = builder.dataset(tensors[i].name, hdf5::file_type(tensors[i].dtype).get(),
                                           tensors[i].shape, H5D_ALLOC_TIME_LATE);
    hdf5::write_attribute(dataset.get(), path, "order", static_cast<std::int64_t>(i));
  }
  builder.close();
  if (header.no_data) return layout;

  // Alignment holds for a whole open file. So the small structure is packed first, without it, and
  // the tensors' storage is taken after it, in order, each at a multiple of 4096.
  const Handle access = write_access(path);
  hdf5::check(H5Pset_alignment(access.get(), 1, kTensorAlignment), path, "cannot align tensors");
  hdf5::check(H5Pset_sieve_buf_size(access.get(), 0), path, "cannot set HDF5 up");
  hdf5::check(H5Pset_small_data_block_size(access.get(), 0), path, "cannot set HDF5 up");
  Handle file = hdf5::own(H5Fopen(file_path.c_str(), H5F_ACC_RDWR, access.get()), H5Fclose, path,
                          "cannot be opened again");
  for (const TensorSpec& tensor : tensors) {
    layout.offsets.push_back(allocate(file.get(), path, tensor.name));
  }
  if (!file.reset()) hdf5::fail(path, "cannot be written");
  return layout;
}

void write_digest(const std::string& file_path, const std::string& path,
                  const std::string& digest) {
  const hdf5::Session session;
  const Handle access = write_access(path);
  Handle file = hdf5::own(H5Fopen(file_path.c_str(), H5F_ACC_RDWR, access.get()), H5Fclose, path,
                          "cannot be opened again");
  Handle attribute = hdf5::own(H5Aopen(file.get(), "digest", H5P_DEFAULT), H5Aclose, path,
                               "cannot write the digest");
  const Handle type =
      hdf5::own(H5Aget_type(attribute.get()), H5Tclose, path, "cannot write the digest");
  hdf5::check(H5Awrite(attribute.get(), type.get(), digest.data()), path,
              "cannot write the digest");
  if (!attribute.reset() || !file.reset()) hdf5::fail(path, "cannot be written");
}

}  // namespace penstock::io

#include "io/checkpoint_walk.hpp"

#include <fmt/format.h>

#include <new>

#include "io/checkpoint_checksum.hpp"
#include "io/checkpoint_format.hpp"
#include "io/checkpoint_guard.hpp"
#include "io/error.hpp"

namespace penstock::io {
namespace {

using hdf5::Handle;

// Exceptions must not pass through HDF5's C code.
template <typename T>
herr_t append(void* list, T item) noexcept {
  try {
    static_cast<std::vector<T>*>(list)->push_back(std::move(item));
    return 0;
  } catch (const std::bad_alloc&) {
    return -1;
  }
}

herr_t keep_link(hid_t, const char* name, const H5L_info_t* info, void* list) noexcept {
  return append(list, LinkInGroup{name, info->type == H5L_TYPE_EXTERNAL});
}

herr_t keep_name(hid_t, const char* name, const H5A_info_t*, void* list) noexcept {
  return append(list, std::string(name));
}

}  // namespace

OpenFile open_checkpoint_file(const std::string& path) {
  File raw(path);
  guard_hdf5_file(raw);
  const Handle access = hdf5::file_access(path);
  Handle opened = hdf5::own(H5Fopen(path.c_str(), H5F_ACC_RDONLY, access.get()), H5Fclose, path,
                            "is a broken HDF5 file");
  return {std::move(raw), std::move(opened)};
}

std::vector<LinkInGroup> links_of(const OpenFile& file, hid_t group, const std::string& name) {
  const Handle plist = hdf5::own(H5Gget_create_plist(group), H5Pclose, file.path(), name);
  unsigned order = 0;
  H5Pget_link_creation_order(plist.get(), &order);
  const H5_index_t index =
      (order & H5P_CRT_ORDER_TRACKED) != 0 ? H5_INDEX_CRT_ORDER : H5_INDEX_NAME;
  std::vector<LinkInGroup> links;
  hdf5::check(H5Literate(group, index, H5_ITER_INC, nullptr, keep_link, &links), file.path(),
              fmt::format("the links of {} cannot be read", quoted(name)));
  return links;
}

std::vector<std::string> attribute_names(const OpenFile& file, hid_t object,
                                         const std::string& name) {
  const Handle plist = hdf5::own(H5Gget_create_plist(object), H5Pclose, file.path(), name);
  unsigned order = 0;
  H5Pget_attr_creation_order(plist.get(), &order);
  const H5_index_t index =
      (order & H5P_CRT_ORDER_TRACKED) != 0 ? H5_INDEX_CRT_ORDER : H5_INDEX_NAME;
  std::vector<std::string> names;
  hdf5::check(H5Aiterate2(object, index, H5_ITER_INC, nullptr, keep_name, &names), file.path(),
              fmt::format("the attributes of {} cannot be read", quoted(name)));
  return names;
}

Extent extent_of(const OpenFile& file, hid_t dataset, const std::string& name) {
  const std::string what = fmt::format("{} cannot be read", quoted(name));
  const Handle space = hdf5::own(H5Dget_space(dataset), H5Sclose, file.path(), what);
  const int rank = H5Sget_simple_extent_ndims(space.get());
  if (H5Sget_simple_extent_type(space.get()) != H5S_SIMPLE || rank < 1 ||
      rank > static_cast<int>(kMaxRank)) {
    throw FileError(file.path(), fmt::format("{} must be an array of 1 to {} dimensions",
                                             quoted(name), kMaxRank));
  }
  std::vector<hsize_t> shape(static_cast<std::size_t>(rank));
  hdf5::check(H5Sget_simple_extent_dims(space.get(), shape.data(), nullptr), file.path(), what);
  Extent extent;
  extent.shape.assign(shape.begin(), shape.end());
  extent.elements = 1;
  for (const hsize_t length : shape) extent.elements *= length;  // the guard saw that it fits
  extent.storage_bytes = H5Dget_storage_size(dataset);
  const haddr_t offset = H5Dget_offset(dataset);
  extent.allocated = offset != HADDR_UNDEF;
  if (!extent.allocated) return extent;
  extent.offset = offset;
  const std::uint64_t file_bytes = file.raw.size_bytes();
  if (offset > file_bytes || extent.storage_bytes > file_bytes - offset) {
    throw FileError(file.path(), fmt::format("{} lies beyond the end of the file", quoted(name)));
  }
  return extent;
}

void TensorWalk::run(const OpenFile& root, bool no_data) {
  root_ = &root;
  no_data_ = no_data;
  const Handle group = hdf5::own(H5Gopen2(root.hdf5.get(), "/", H5P_DEFAULT), H5Gclose, root.path(),
                                 "the root group cannot be opened");
  visit_group(root, group.get(), "", 0);
}

void TensorWalk::visit_group(const OpenFile& file, hid_t group, const std::string& name,
                             std::size_t depth) {
  if (depth > kMaxDepth) {
    throw FileError(file.path(),
                    fmt::format("{} lies deeper than {} groups", quoted(name), kMaxDepth));
  }
  for (const LinkInGroup& link : links_of(file, group, name.empty() ? "/" : name)) {
    if (depth == 0 &&
        (link.name == "config" || link.name == "tokenizer" || link.name == "checksums")) {
      continue;
    }
    const std::string child = name + "/" + link.name;
    if (link.external) {
      visit_external(file, group, link.name, child, depth);
    } else {
      visit_object(file,
                   hdf5::own(H5Oopen(group, link.name.c_str(), H5P_DEFAULT), H5Oclose, file.path(),
                             fmt::format("{} cannot be opened", quoted(child))),
                   child, depth);
    }
  }
}

void TensorWalk::visit_object(const OpenFile& file, const Handle& object, const std::string& name,
                              std::size_t depth) {
  H5O_info_t info;
  hdf5::check(H5Oget_info2(object.get(), &info, H5O_INFO_BASIC), file.path(),
              fmt::format("{} cannot be read", quoted(name)));
  if (!seen_.emplace(file.path(), info.addr).second) {
    throw FileError(file.path(), fmt::format("{} is reached by two links", quoted(name)));
  }
  if (info.type == H5O_TYPE_GROUP) return visit_group(file, object.get(), name, depth + 1);
  add_tensor(file, object.get(), name);  // the guard lets nothing else through
}

// The link's file is opened here, not by HDF5, so that it is guarded too. Its path is followed
// through hard links only.
void TensorWalk::visit_external(const OpenFile& file, hid_t group, const std::string& link_name,
                                const std::string& name, std::size_t depth) {
  const std::string what = fmt::format("the external link {}", quoted(name));
  if (&file != root_) throw FileError(file.path(), what + " must stand in the checkpoint itself");
  H5L_info_t info;
  hdf5::check(H5Lget_info(group, link_name.c_str(), &info, H5P_DEFAULT), file.path(), what);
  if (info.u.val_size > 2 * kMaxNameBytes) throw FileError(file.path(), what + " is too long");
  std::vector<char> value(info.u.val_size);
  const char* target_file = nullptr;
  const char* target_path = nullptr;
  hdf5::check(H5Lget_val(group, link_name.c_str(), value.data(), value.size(), H5P_DEFAULT),
              file.path(), what);
  hdf5::check(H5Lunpack_elink_val(value.data(), value.size(), nullptr, &target_file, &target_path),
              file.path(), what);
  const std::string file_name = target_file;
  if (file_name.empty() || file_name == "." || file_name == ".." ||
      file_name.find('/') != std::string::npos) {
    throw FileError(file.path(), fmt::format("{} points to the file {}; only names of files in "
                                             "the checkpoint's own folder are allowed",
                                             what, quoted(file_name)));
  }
  auto found = linked_files_.find(file_name);
  if (found == linked_files_.end()) {
    if (linked_files_.size() >= kMaxFiles) throw FileError(file.path(), what + ": too many files");
    found = linked_files_.emplace(file_name, open_checkpoint_file(folder_ + file_name)).first;
  }
  const OpenFile& linked = found->second;
  Handle object = hdf5::own(H5Gopen2(linked.hdf5.get(), "/", H5P_DEFAULT), H5Gclose, linked.path(),
                            "the root group cannot be opened");
  std::string_view rest = target_path;
  while (!rest.empty()) {
    const std::string part(rest.substr(0, rest.find('/')));
    rest.remove_prefix(std::min(part.size() + 1, rest.size()));
    if (part.empty()) continue;
    H5L_info_t step;
    if (H5Lget_info(object.get(), part.c_str(), &step, H5P_DEFAULT) < 0 ||
        step.type != H5L_TYPE_HARD) {
      throw FileError(linked.path(), fmt::format("has no object {}, where {} of {} points",
                                                 quoted(target_path), what, file.path()));
    }
    object = hdf5::own(H5Oopen(object.get(), part.c_str(), H5P_DEFAULT), H5Oclose, linked.path(),
                       fmt::format("{} cannot be opened", quoted(target_path)));
  }
  visit_object(linked, object, name, depth);
}

void TensorWalk::add_tensor(const OpenFile& file, hid_t dataset, const std::string& name) {
  const std::string& path = file.path();
  if (tensors_.size() >= kMaxTensors) {
    throw FileError(path, fmt::format("has more than {} tensors", kMaxTensors));
  }
  if (name.size() > kMaxNameBytes) throw FileError(path, "has a tensor whose name is too long");
  const Handle type = hdf5::own(H5Dget_type(dataset), H5Tclose, path,
                                fmt::format("the type of {} cannot be read", quoted(name)));
  const auto dtype = hdf5::dtype_of(type.get());
  if (!dtype) {
    throw FileError(
        path, fmt::format("{} has an element type that is none of f32, f16, bf16", quoted(name)));
  }
  const Extent extent = extent_of(file, dataset, name);
  Found found;
  found.info.name = name;
  found.info.dtype = *dtype;
  found.info.shape = extent.shape;
  found.info.file = path;
  found.info.offset = extent.offset;
  if (!tensor_bytes(found.info, found.info.size_bytes) || found.info.size_bytes == 0) {
    throw FileError(path, fmt::format("{} has the shape [{}], which no tensor can have",
                                      quoted(name), fmt::join(extent.shape, ", ")));
  }
  if (no_data_ && extent.allocated) {
    throw FileError(path, fmt::format("{} has data in a file that is marked as shapes only "
                                      "(no_data = 1)",
                                      quoted(name)));
  }
  if (!no_data_ && !extent.allocated) {
    throw FileError(path, fmt::format("{} has no data", quoted(name)));
  }
  if (!no_data_ && extent.storage_bytes != found.info.size_bytes) {
    throw FileError(
        path, fmt::format("{} stores {} bytes, but its shape [{}] in {} needs {}", quoted(name),
                          extent.storage_bytes, fmt::join(extent.shape, ", "), to_string(*dtype),
                          found.info.size_bytes));
  }
  const Attribute order = hdf5::read_attribute(dataset, path, quoted(name), "order");
  if (!std::holds_alternative<std::int64_t>(order)) {
    throw FileError(path, fmt::format("attribute 'order' of {} must be an integer", quoted(name)));
  }
  found.order = std::get<std::int64_t>(order);
  tensors_.push_back(std::move(found));
}

}  // namespace penstock::io

#include "io/checkpoint_structure.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <string_view>

#include "io/checkpoint_format.hpp"
#include "io/checkpoint_hdf5.hpp"
#include "io/checkpoint_walk.hpp"
#include "io/error.hpp"

namespace penstock::io {
namespace {

using hdf5::Handle;

template <typename T>
T attribute(const OpenFile& file, hid_t object, std::string_view where, const std::string& name,
            std::string_view kind) {
  Attribute value = hdf5::read_attribute(object, file.path(), where, name);
  if (T* typed = std::get_if<T>(&value)) return std::move(*typed);
  throw FileError(file.path(),
                  fmt::format("attribute {} of {} must be {}", quoted(name), where, kind));
}

std::string text(const OpenFile& file, hid_t object, const std::string& name) {
  return attribute<std::string>(file, object, "/", name, "a string");
}

std::int64_t integer(const OpenFile& file, hid_t object, std::string_view where,
                     const std::string& name) {
  return attribute<std::int64_t>(file, object, where, name, "an integer");
}

// What says that this is a checkpoint of a schema we know comes first, so that other files and
// newer ones are called what they are.
void check_format(const OpenFile& file, hid_t root) {
  if (H5Aexists(root, "format") <= 0 || H5Aexists(root, "schema") <= 0) {
    throw FileError(file.path(),
                    "is an HDF5 file but not a checkpoint: its root has no attributes 'format' "
                    "and 'schema'; make one with penstock convert");
  }
  const std::string format = text(file, root, "format");
  if (format != kFormatName) {
    throw FileError(file.path(),
                    fmt::format("has the format {}, not {}", quoted(format), quoted(kFormatName)));
  }
  const std::int64_t schema = integer(file, root, "/", "schema");
  if (schema > kSchema) {
    throw FileError(file.path(), fmt::format("has checkpoint schema {}; this program knows "
                                             "schema {}: use a newer penstock",
                                             schema, kSchema));
  }
  if (schema != kSchema) {
    throw FileError(file.path(),
                    fmt::format("has checkpoint schema {}, which does not exist", schema));
  }
}

// The content of a one-dimensional uint8 dataset.
std::string read_bytes(const OpenFile& file, hid_t group, const std::string& link,
                       const std::string& name, std::uint64_t& budget) {
  const Handle dataset =
      hdf5::own(H5Dopen2(group, link.c_str(), H5P_DEFAULT), H5Dclose, file.path(),
                fmt::format("{} cannot be opened as a dataset", quoted(name)));
  const Handle type = hdf5::own(H5Dget_type(dataset.get()), H5Tclose, file.path(), name);
  const Extent extent = extent_of(file, dataset.get(), name);
  if (H5Tequal(type.get(), H5T_STD_U8LE) <= 0 || extent.shape.size() != 1) {
    throw FileError(file.path(), fmt::format("{} must be a one-dimensional array of unsigned "
                                             "bytes",
                                             quoted(name)));
  }
  if (extent.elements > std::min(budget, kMaxBlobBytes)) {
    throw FileError(file.path(),
                    fmt::format("{} has {} bytes; at most {} are allowed, {} with all others",
                                quoted(name), extent.elements, kMaxBlobBytes, kMaxBlobsBytes));
  }
  if (extent.elements == 0) return {};
  if (!extent.allocated || extent.storage_bytes != extent.elements) {
    throw FileError(file.path(),
                    fmt::format("{} claims {} bytes and stores {}", quoted(name), extent.elements,
                                extent.allocated ? extent.storage_bytes : 0));
  }
  budget -= extent.elements;
  std::string bytes(extent.elements, '\0');
  file.raw.read_at(extent.offset, std::as_writable_bytes(std::span(bytes)));
  return bytes;
}

Handle open_group(const OpenFile& file, const char* name) {
  return hdf5::own(H5Gopen2(file.hdf5.get(), name, H5P_DEFAULT), H5Gclose, file.path(),
                   fmt::format("the group {} is missing", name));
}

CheckpointHeader read_header(const OpenFile& file, hid_t root) {
  CheckpointHeader header;
  header.architecture = text(file, root, "architecture");
  header.source = text(file, root, "source");
  header.created_by = text(file, root, "created_by");
  const std::string dtype = text(file, root, "dtype");
  const auto parsed = parse_dtype(dtype);
  if (!parsed) {
    throw FileError(file.path(), fmt::format("attribute 'dtype' of / is {}; known are f32, f16 "
                                             "and bf16",
                                             quoted(dtype)));
  }
  header.dtype = *parsed;
  if (H5Aexists(root, "no_data") > 0) {
    const std::int64_t no_data = integer(file, root, "/", "no_data");
    if (no_data != 0 && no_data != 1) {
      throw FileError(file.path(), "attribute 'no_data' of / must be 0 or 1");
    }
    header.no_data = no_data == 1;
  }

  std::uint64_t budget = kMaxBlobsBytes;
  const Handle config = open_group(file, "/config");
  for (const std::string& name : attribute_names(file, config.get(), "/config")) {
    header.config.push_back(
        {name, hdf5::read_attribute(config.get(), file.path(), "/config", name)});
  }
  if (H5Lexists(config.get(), kConfigTextName, H5P_DEFAULT) > 0) {
    header.config_text = read_bytes(file, config.get(), kConfigTextName,
                                    fmt::format("/config/{}", kConfigTextName), budget);
  }
  return header;
}

std::vector<Blob> read_tokenizer(const OpenFile& file) {
  std::uint64_t budget = kMaxBlobsBytes;
  std::vector<Blob> blobs;
  const Handle tokenizer = open_group(file, "/tokenizer");
  const auto links = links_of(file, tokenizer.get(), "/tokenizer");
  if (links.size() > kMaxBlobs) {
    throw FileError(file.path(), fmt::format("/tokenizer has {} members, at most {} are allowed",
                                             links.size(), kMaxBlobs));
  }
  for (const LinkInGroup& link : links) {
    const std::string name = "/tokenizer/" + link.name;
    if (link.external) {
      throw FileError(file.path(),
                      fmt::format("{} is an external link; only tensors may be", quoted(name)));
    }
    blobs.push_back({link.name, read_bytes(file, tokenizer.get(), link.name, name, budget)});
  }
  return blobs;
}

// Sorts by `order`, which must be 0, 1, 2, ….
std::vector<TensorInfo> in_order(const std::string& path, std::vector<TensorWalk::Found>& found) {
  std::ranges::sort(found, {}, &TensorWalk::Found::order);
  std::vector<TensorInfo> tensors;
  for (TensorWalk::Found& tensor : found) {
    if (tensor.order != static_cast<std::int64_t>(tensors.size())) {
      throw FileError(path, fmt::format("attribute 'order' of {} is {}, where {} comes next; it "
                                        "must number all tensors from 0",
                                        quoted(tensor.info.name), tensor.order, tensors.size()));
    }
    tensors.push_back(std::move(tensor.info));
  }
  if (tensors.empty()) throw FileError(path, "has no tensors");
  return tensors;
}

// Tensors that share bytes could claim more memory than the file has.
void check_no_overlap(const std::vector<TensorInfo>& tensors) {
  std::vector<const TensorInfo*> by_place;
  for (const TensorInfo& tensor : tensors) by_place.push_back(&tensor);
  std::ranges::sort(by_place, [](const TensorInfo* a, const TensorInfo* b) {
    return std::tie(a->file, a->offset) < std::tie(b->file, b->offset);
  });
  for (std::size_t i = 1; i < by_place.size(); ++i) {
    const TensorInfo& before = *by_place[i - 1];
    const TensorInfo& after = *by_place[i];
    if (before.file == after.file && after.offset - before.offset < before.size_bytes) {
      throw FileError(before.file, fmt::format("{} and {} share bytes", quoted(before.name),
                                               quoted(after.name)));
    }
  }
}

std::vector<BlockChecksum> read_checksums(const OpenFile& file, std::uint64_t blocks) {
  const std::string& path = file.path();
  if (H5Lexists(file.hdf5.get(), "checksums", H5P_DEFAULT) <= 0) {
    throw FileError(path, "the table /checksums is missing");
  }
  const Handle dataset = hdf5::own(H5Dopen2(file.hdf5.get(), "/checksums", H5P_DEFAULT), H5Dclose,
                                   path, "/checksums cannot be opened as a dataset");
  const auto algorithm =
      attribute<std::string>(file, dataset.get(), "/checksums", "algorithm", "a string");
  const std::int64_t block_bytes = integer(file, dataset.get(), "/checksums", "block_bytes");
  if (algorithm != kChecksumAlgorithm ||
      block_bytes != static_cast<std::int64_t>(kChecksumBlockBytes)) {
    throw FileError(
        path, fmt::format("/checksums is {} of blocks of {} bytes; schema 1 has {} of "
                          "{}",
                          quoted(algorithm), block_bytes, kChecksumAlgorithm, kChecksumBlockBytes));
  }
  const Handle type = hdf5::own(H5Dget_type(dataset.get()), H5Tclose, path, "/checksums");
  const Extent extent = extent_of(file, dataset.get(), "/checksums");
  const std::uint64_t table_bytes = blocks * sizeof(BlockChecksum);
  if (H5Tequal(type.get(), H5T_STD_U8LE) <= 0 ||
      extent.shape != std::vector<std::uint64_t>{blocks, sizeof(BlockChecksum)} ||
      !extent.allocated || extent.storage_bytes != table_bytes) {
    throw FileError(
        path, fmt::format("/checksums has the shape [{}]; the tensors' {} blocks need "
                          "unsigned bytes of the shape [{}, {}]",
                          fmt::join(extent.shape, ", "), blocks, blocks, sizeof(BlockChecksum)));
  }
  std::vector<BlockChecksum> checksums(blocks);
  file.raw.read_at(extent.offset, std::as_writable_bytes(std::span(checksums)));
  return checksums;
}

void check_digest(const std::string& path, const CheckpointStructure& structure) {
  std::vector<const TensorSpec*> specs;
  for (const TensorInfo& tensor : structure.tensors) specs.push_back(&tensor);
  const std::string digest = checkpoint_digest(structure.header, specs, structure.checksums);
  if (digest != structure.digest) {
    throw FileError(path,
                    fmt::format("its digest says {}, its content {}: config, tokenizer, names, "
                                "shapes or checksums were damaged or changed; convert or copy it "
                                "again",
                                quoted(structure.digest), digest));
  }
}

}  // namespace

CheckpointStructure read_structure(const std::string& path, CheckpointReader::Contents contents) {
  const hdf5::Session session;
  OpenFile file = open_checkpoint_file(path);
  CheckpointStructure structure;
  {
    const Handle root = open_group(file, "/");
    check_format(file, root.get());
    structure.header = read_header(file, root.get());
    if (contents == CheckpointReader::Contents::all) {
      structure.header.tokenizer = read_tokenizer(file);
    }
    structure.digest = text(file, root.get(), "digest");
  }
  TensorWalk walk(path.substr(0, path.rfind('/') + 1));
  walk.run(file, structure.header.no_data);
  structure.tensors = in_order(path, walk.tensors());
  std::uint64_t blocks = 0;
  for (const TensorInfo& tensor : structure.tensors) {
    structure.first_blocks.push_back(blocks);
    blocks += count_blocks(tensor.size_bytes);
  }
  if (!structure.header.no_data) {
    check_no_overlap(structure.tensors);
    structure.checksums = read_checksums(file, blocks);
  }
  if (contents == CheckpointReader::Contents::all) check_digest(path, structure);
  const auto keep = [&](OpenFile& opened) {
    structure.size_bytes += opened.raw.size_bytes();
    opened.hdf5.reset();
    structure.files.emplace(opened.path(), std::move(opened.raw));
  };
  for (auto& [name, linked] : walk.linked_files()) keep(linked);
  keep(file);
  return structure;
}

}  // namespace penstock::io

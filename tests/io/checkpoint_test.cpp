#include "io/checkpoint.hpp"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <sys/file.h>
#include <unistd.h>
#include <xxhash.h>

#include <bit>
#include <map>
#include <thread>

#include "tests/io/checkpoint_support.hpp"

namespace penstock::io {
namespace {

using test::bytes_of;
using test::CheckpointTest;
using test::content_of;
using test::error_of;
using test::read_file;
using test::small_header;
using test::small_tensors;
using test::write_checkpoint;
using test::write_file;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::StartsWith;

TEST_F(CheckpointTest, RoundTripKeepsEverything) {
  const CheckpointHeader header = small_header();
  const auto tensors = small_tensors();
  write_checkpoint(path("a.h5"), header, tensors);

  const CheckpointReader reader(path("a.h5"));
  EXPECT_EQ(reader.path(), path("a.h5"));
  EXPECT_EQ(reader.size_bytes(), std::filesystem::file_size(path("a.h5")));
  EXPECT_EQ(reader.header().architecture, header.architecture);
  EXPECT_EQ(reader.header().source, header.source);
  EXPECT_EQ(reader.header().created_by, header.created_by);
  EXPECT_EQ(reader.header().dtype, header.dtype);
  EXPECT_FALSE(reader.header().no_data);
  EXPECT_EQ(reader.header().config_text, header.config_text);
  ASSERT_EQ(reader.header().config.size(), header.config.size());
  for (std::size_t i = 0; i < header.config.size(); ++i) {
    EXPECT_EQ(reader.header().config[i].name, header.config[i].name);
    EXPECT_EQ(reader.header().config[i].value, header.config[i].value);
  }
  ASSERT_EQ(reader.header().tokenizer.size(), header.tokenizer.size());
  for (std::size_t i = 0; i < header.tokenizer.size(); ++i) {
    EXPECT_EQ(reader.header().tokenizer[i].name, header.tokenizer[i].name);
    EXPECT_EQ(reader.header().tokenizer[i].bytes, header.tokenizer[i].bytes);
  }
  ASSERT_EQ(reader.tensors().size(), tensors.size());
  std::uint64_t total = 0;
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    const TensorInfo& info = reader.tensors()[i];
    EXPECT_EQ(info.name, tensors[i].name);
    EXPECT_EQ(info.dtype, tensors[i].dtype);
    EXPECT_EQ(info.shape, tensors[i].shape);
    EXPECT_EQ(info.size_bytes, bytes_of(tensors[i]));
    EXPECT_EQ(info.file, path("a.h5"));
    EXPECT_EQ(reader.find(info.name), &info);
    std::vector<std::byte> bytes(info.size_bytes);
    reader.read(info, bytes);
    EXPECT_EQ(bytes, content_of(i, info.size_bytes));
    total += info.size_bytes;
    EXPECT_EQ(reader.bytes_read(), total);
  }
  EXPECT_EQ(reader.find("/layers"), nullptr);
  EXPECT_THAT(reader.verify({}), ElementsAre());
}

TEST_F(CheckpointTest, TensorsLieInOrderEachAtAMultipleOf4096) {
  write_checkpoint(path("a.h5"), small_header(), small_tensors());
  const CheckpointReader reader(path("a.h5"));
  std::uint64_t end = 0;
  for (const TensorInfo& tensor : reader.tensors()) {
    EXPECT_EQ(tensor.offset % 4096, 0u) << tensor.name;
    if (end != 0) {
      EXPECT_EQ(tensor.offset, (end + 4095) / 4096 * 4096) << tensor.name;
    }
    end = tensor.offset + tensor.size_bytes;
  }
  EXPECT_EQ(reader.size_bytes(), end);  // nothing behind the last tensor
}

// 30 layers of 9 tensors, as SmolLM2 has: the structure must stay small.
TEST_F(CheckpointTest, StructureStaysSmall) {
  std::vector<TensorSpec> tensors;
  for (int layer = 0; layer < 30; ++layer) {
    for (int i = 0; i < 9; ++i) {
      tensors.push_back({"/layers/" + std::to_string(1000 + layer) + "/t" + std::to_string(i),
                         DType::bf16,
                         {2048}});
    }
  }
  write_checkpoint(path("a.h5"), small_header(), tensors);
  EXPECT_LT(std::filesystem::file_size(path("a.h5")), 270u * 4096 + 256u * 1024);
}

TEST_F(CheckpointTest, EqualInputsGiveEqualFiles) {
  write_checkpoint(path("a.h5"), small_header(), small_tensors());
  write_checkpoint(path("b.h5"), small_header(), small_tensors());
  const std::string bytes = read_file(path("a.h5"));
  EXPECT_EQ(bytes, read_file(path("b.h5")));
  // Both were made in the same second: look for HDF5's mark of stored times as well.
  for (std::size_t at = bytes.find("OHDR"); at != std::string::npos;
       at = bytes.find("OHDR", at + 4)) {
    EXPECT_EQ(bytes[at + 5] & 0x20, 0) << at;
  }
}

TEST_F(CheckpointTest, PiecesOfAnySizeGiveTheSameFile) {
  const std::vector<TensorSpec> tensors{{"/a", DType::f32, {1500, 1000}}, {"/b", DType::f32, {9}}};
  write_checkpoint(path("a.h5"), small_header(), tensors);
  const auto bytes = content_of(0, bytes_of(tensors[0]));
  CheckpointWriter writer(path("b.h5"), small_header(), tensors);
  const std::vector<std::uint64_t> ends{1, 4095, kChecksumBlockBytes - 1, kChecksumBlockBytes + 7,
                                        bytes.size()};
  std::uint64_t done = 0;
  for (const std::uint64_t end : ends) {
    writer.append(0, std::span(bytes).subspan(done, end - done));
    if (done == 0) writer.append(1, content_of(1, 36));  // in the middle of the other
    done = end;
  }
  writer.finish();
  EXPECT_EQ(read_file(path("a.h5")), read_file(path("b.h5")));
}

// README.md, "Digest", written out once more with the one-shot function of xxHash.
TEST_F(CheckpointTest, DigestIsWhatTheReadmeSays) {
  const CheckpointHeader header = small_header();
  std::vector<TensorSpec> tensors = small_tensors();
  tensors.push_back({"/zz", DType::f32, {3, 1 << 19}});  // 6 MiB: two blocks
  write_checkpoint(path("a.h5"), header, tensors);

  std::string bytes;
  const auto number = [&](std::uint64_t value) {
    bytes.append(reinterpret_cast<const char*>(&value), 8);
  };
  const auto text = [&](std::string_view value) {
    number(value.size());
    bytes += value;
  };
  text("penstock");
  number(1);
  text("llama");
  text("bf16");
  number(0);
  number(header.config.size());
  std::map<std::string, Attribute> fields;
  for (const NamedAttribute& field : header.config) fields.emplace(field.name, field.value);
  for (const auto& [name, value] : fields) {
    text(name);
    text(std::array{"i", "f", "s"}[value.index()]);
    if (value.index() == 0) number(static_cast<std::uint64_t>(std::get<0>(value)));
    if (value.index() == 1) number(std::bit_cast<std::uint64_t>(std::get<1>(value)));
    if (value.index() == 2) text(std::get<2>(value));
  }
  text(header.config_text);
  number(3);
  for (const int i : {1, 2, 0}) {  // chat_template, nothing, tokenizer.json
    text(header.tokenizer[static_cast<std::size_t>(i)].name);
    text(header.tokenizer[static_cast<std::size_t>(i)].bytes);
  }
  number(tensors.size());
  std::string checksums;
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    text(tensors[i].name);
    text(to_string(tensors[i].dtype));
    number(tensors[i].shape.size());
    for (const std::uint64_t extent : tensors[i].shape) number(extent);
    const auto content = content_of(i, bytes_of(tensors[i]));
    for (std::size_t first = 0; first < content.size(); first += 4194304) {
      XXH128_canonical_t block;
      XXH128_canonicalFromHash(
          &block, XXH3_128bits(content.data() + first,
                               std::min<std::size_t>(4194304, content.size() - first)));
      checksums.append(reinterpret_cast<const char*>(block.digest), 16);
    }
  }
  text(checksums);
  XXH128_canonical_t digest;
  XXH128_canonicalFromHash(&digest, XXH3_128bits(bytes.data(), bytes.size()));
  std::string hexadecimal;
  for (const unsigned char byte : digest.digest) {
    hexadecimal += "0123456789abcdef"[byte >> 4u];
    hexadecimal += "0123456789abcdef"[byte & 15u];
  }
  EXPECT_EQ(CheckpointReader(path("a.h5")).digest(), hexadecimal);
}

TEST_F(CheckpointTest, DigestCoversAllThatDecidesAnAnswer) {
  std::vector<std::string> digests;
  const auto add = [&](const CheckpointHeader& header, const std::vector<TensorSpec>& tensors) {
    write_checkpoint(path("a.h5"), header, tensors);
    digests.push_back(CheckpointReader(path("a.h5")).digest());
  };
  const auto tensors = small_tensors();
  add(small_header(), tensors);
  CheckpointHeader header = small_header();
  header.config[0].value = std::int64_t{65};
  add(header, tensors);
  header = small_header();
  header.config[0].name = "hidden_sizf";
  add(header, tensors);
  header = small_header();
  header.config_text += " ";
  add(header, tensors);
  header = small_header();
  header.tokenizer[0].bytes[3] = 'M';
  add(header, tensors);
  header = small_header();
  header.architecture = "mistral";
  add(header, tensors);
  auto other = tensors;
  other[2].name = "/layers/0000/attn/k";
  add(small_header(), other);
  other = tensors;
  other[2].dtype = DType::f16;
  add(small_header(), other);
  other = tensors;
  other[2].shape = {32, 128};
  add(small_header(), other);
  {
    CheckpointWriter writer(path("a.h5"), small_header(), tensors);
    for (std::size_t i = 0; i < tensors.size(); ++i) {
      auto bytes = content_of(i, bytes_of(tensors[i]));
      if (i == 4) bytes[77] ^= std::byte{1};
      writer.append(i, bytes);
    }
    writer.finish();
    digests.push_back(CheckpointReader(path("a.h5")).digest());
  }
  for (std::size_t i = 0; i < digests.size(); ++i) {
    for (std::size_t j = 0; j < i; ++j) EXPECT_NE(digests[i], digests[j]) << i << " " << j;
  }
  // Who made it, and from where, is for people.
  header = small_header();
  header.source = "elsewhere";
  header.created_by = "penstock 9";
  add(header, tensors);
  EXPECT_EQ(digests.front(), digests.back());
}

TEST_F(CheckpointTest, ADamagedByteIsNamedByReadAndVerify) {
  const std::vector<TensorSpec> tensors{{"/a", DType::f32, {64}},
                                        {"/b", DType::f32, {2304, 1024}},  // 9 MiB: 3 blocks
                                        {"/c", DType::bf16, {64}}};
  write_checkpoint(path("a.h5"), small_header(), tensors);
  std::string bytes = read_file(path("a.h5"));
  std::uint64_t at = 0;
  {
    const CheckpointReader reader(path("a.h5"));
    at = reader.find("/b")->offset + kChecksumBlockBytes + 12345;
  }
  bytes[at] = static_cast<char>(bytes[at] ^ 0x10);
  write_file(path("a.h5"), bytes);

  const CheckpointReader reader(path("a.h5"));
  std::vector<std::byte> out(bytes_of(tensors[1]));
  for (const int threads : {1, 2, 5}) {
    const std::string error = error_of([&] { reader.read(*reader.find("/b"), out, threads); });
    EXPECT_THAT(error, StartsWith(path("a.h5") + ": tensor /b, block 1 of 3 (bytes 4194304 to "
                                                 "8388608 of the tensor"));
  }
  std::uint64_t done = 0;
  const auto lines = reader.verify([&](std::uint64_t bytes_done) {
    EXPECT_GT(bytes_done, done);
    done = bytes_done;
  });
  EXPECT_EQ(done, 256u + 9u * 1048576 + 128);
  EXPECT_THAT(lines, ElementsAre(HasSubstr("tensor /b, block 1 of 3 (bytes 4194304 to 8388608")));
  out.resize(256);
  reader.read(*reader.find("/a"), out);  // others are as good as before
}

TEST_F(CheckpointTest, RangesAreWholeBlocksAndChecked) {
  const std::vector<TensorSpec> tensors{{"/a", DType::f32, {64}},
                                        {"/b", DType::f32, {2304, 1024}}};  // 9 MiB: 3 blocks
  write_checkpoint(path("a.h5"), small_header(), tensors);
  const std::vector<std::byte> content = content_of(1, bytes_of(tensors[1]));
  const auto part = [&](std::uint64_t first, std::uint64_t size) {
    return std::vector<std::byte>(content.begin() + static_cast<std::ptrdiff_t>(first),
                                  content.begin() + static_cast<std::ptrdiff_t>(first + size));
  };
  constexpr std::uint64_t kBlock = kChecksumBlockBytes;
  {
    const CheckpointReader reader(path("a.h5"));
    const TensorInfo& b = *reader.find("/b");
    std::vector<std::byte> out;
    for (const auto& [first, size] : std::vector<std::pair<std::uint64_t, std::uint64_t>>{
             {0, kBlock}, {kBlock, kBlock}, {kBlock, 5u << 20}, {2 * kBlock, 1u << 20}}) {
      for (const int threads : {1, 3}) {
        out.assign(size, std::byte{});
        reader.read_range(b, first, out, threads);
        EXPECT_EQ(out, part(first, size)) << first << " " << size;
      }
    }
    for (const auto& [first, size] : std::vector<std::pair<std::uint64_t, std::uint64_t>>{
             {4096, kBlock}, {0, 4096}, {2 * kBlock, 2u << 20}, {3 * kBlock, 0}}) {
      out.assign(size, std::byte{});
      EXPECT_THROW(reader.read_range(b, first, out), std::logic_error) << first << " " << size;
    }
  }
  std::string bytes = read_file(path("a.h5"));
  {
    const CheckpointReader reader(path("a.h5"));
    bytes[reader.find("/b")->offset + kBlock + 1] ^= 1;
  }
  write_file(path("a.h5"), bytes);
  const CheckpointReader reader(path("a.h5"));
  std::vector<std::byte> out(kBlock);
  reader.read_range(*reader.find("/b"), 0, out);  // another block is as good as before
  EXPECT_THAT(error_of([&] { reader.read_range(*reader.find("/b"), kBlock, out); }),
              HasSubstr("tensor /b, block 1 of 3"));
}

TEST_F(CheckpointTest, VerifyNamesEveryDamagedBlock) {
  write_checkpoint(path("a.h5"), small_header(), small_tensors());
  std::string bytes = read_file(path("a.h5"));
  {
    const CheckpointReader reader(path("a.h5"));
    for (const char* name : {"/embed/weight", "/layers/0001/attn/norm", "/head/weight"}) {
      const TensorInfo& tensor = *reader.find(name);
      bytes[tensor.offset + tensor.size_bytes - 1] ^= 1;
    }
  }
  write_file(path("a.h5"), bytes);
  EXPECT_THAT(CheckpointReader(path("a.h5")).verify({}),
              ElementsAre(HasSubstr("tensor /embed/weight, block 0 of 1 (bytes 0 to 6400"),
                          HasSubstr("/layers/0001/attn/norm"), HasSubstr("/head/weight")));
}

// HDF5 locks files by itself, which parallel file systems refuse; the reader must not ask.
TEST_F(CheckpointTest, ALockOfSomebodyElseDoesNotMatter) {
  write_checkpoint(path("a.h5"), small_header(), small_tensors());
  const int descriptor = ::open(path("a.h5").c_str(), O_RDWR);
  ASSERT_EQ(::flock(descriptor, LOCK_EX | LOCK_NB), 0);
  EXPECT_EQ(CheckpointReader(path("a.h5")).tensors().size(), small_tensors().size());
  ::close(descriptor);
}

TEST_F(CheckpointTest, ManyThreadsReadOneReader) {
  const std::vector<TensorSpec> tensors{{"/a", DType::f32, {1500, 1000}},
                                        {"/b", DType::f32, {1500, 1000}}};
  write_checkpoint(path("a.h5"), small_header(), tensors);
  const CheckpointReader reader(path("a.h5"));
  {
    std::vector<std::jthread> pool;
    for (std::size_t i = 0; i < 4; ++i) {
      pool.emplace_back([&, i] {
        std::vector<std::byte> out(bytes_of(tensors[i % 2]));
        reader.read(reader.tensors()[i % 2], out, 3);
        EXPECT_EQ(out, content_of(i % 2, out.size()));
      });
    }
  }
  EXPECT_EQ(reader.bytes_read(), 4u * 6000000);
}

TEST_F(CheckpointTest, ShapesOnly) {
  CheckpointHeader header = small_header();
  header.no_data = true;
  // Llama-3.1-405B's embedding, and more than any disk holds.
  const std::vector<TensorSpec> tensors{{"/embed/weight", DType::bf16, {128256, 16384}},
                                        {"/vast", DType::f32, {1u << 30, 1u << 30}}};
  {
    CheckpointWriter writer(path("a.h5"), header, tensors);
    const std::byte byte{};
    EXPECT_THAT(error_of([&] { writer.append(0, std::span(&byte, 1)); }), HasSubstr("shapes-only"));
    writer.finish();
  }
  EXPECT_LT(std::filesystem::file_size(path("a.h5")), 32768u);
  const CheckpointReader reader(path("a.h5"));
  EXPECT_TRUE(reader.header().no_data);
  EXPECT_EQ(reader.tensors()[1].shape, tensors[1].shape);
  EXPECT_EQ(reader.tensors()[0].size_bytes, 128256u * 16384 * 2);
  EXPECT_EQ(reader.digest().size(), 32u);
  std::vector<std::byte> out(1);
  EXPECT_THAT(error_of([&] { reader.read(reader.tensors()[0], out); }),
              HasSubstr("holds shapes only (no_data = 1), so tensor /embed/weight cannot be read"));
  EXPECT_THAT(error_of([&] { reader.verify({}); }), HasSubstr("holds shapes only"));
}

TEST_F(CheckpointTest, WithoutTheTokenizerAllElseIsRead) {
  write_checkpoint(path("a.h5"), small_header(), small_tensors());
  const CheckpointReader all(path("a.h5"));
  const CheckpointReader reader(path("a.h5"), CheckpointReader::Contents::without_tokenizer);
  EXPECT_FALSE(all.header().tokenizer.empty());
  EXPECT_TRUE(reader.header().tokenizer.empty());
  EXPECT_EQ(reader.header().config_text, all.header().config_text);
  EXPECT_EQ(reader.digest(), all.digest());
  ASSERT_EQ(reader.tensors().size(), all.tensors().size());
  for (const TensorInfo& tensor : reader.tensors()) {
    std::vector<std::byte> bytes(tensor.size_bytes);
    std::vector<std::byte> expected(tensor.size_bytes);
    reader.read(tensor, bytes);
    all.read(*all.find(tensor.name), expected);
    EXPECT_TRUE(bytes == expected) << tensor.name;
  }
}

}  // namespace
}  // namespace penstock::io

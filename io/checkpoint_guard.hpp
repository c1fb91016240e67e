#pragma once

#include "io/file.hpp"

namespace penstock::io {

// Checks the raw bytes of an HDF5 file before the HDF5 library sees them: HDF5 1.10 is known to
// crash on hostile files, so it is handed only what schema 1 needs (README.md, "Structure"):
// superblock 2 or 3, compact groups, contiguous datasets without filters or external storage,
// types that are plain numbers or strings, everything inside the file, no object twice.
// Throws FileError that names the object.
void guard_hdf5_file(const File& file);

}  // namespace penstock::io

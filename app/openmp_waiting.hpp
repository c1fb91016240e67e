#pragma once

namespace penstock::app {

// GNU's OpenMP lets a thread that waits spin for milliseconds, which is right alone on its cores
// but makes ranks that share cores many times slower; the other choice it offers, to sleep at once,
// halves the speed of small steps. Spinning for some microseconds serves both. It reads its
// settings when it is loaded, so the program starts itself once more with the setting in its
// environment. Returns when that is done, not needed (the user chose), or not possible.
void bound_openmp_spinning(char** argv);

}  // namespace penstock::app

#include <gtest/gtest.h>

#include <cstdlib>
#include <sstream>
#include <string>

namespace {

// For mpirun and the program where tests start them: "NAME=VALUE NAME=VALUE". What is set already
// stays.
void set_environment(const std::string& settings) {
  std::istringstream stream(settings);
  for (std::string setting; stream >> setting;) {
    const std::size_t equals = setting.find('=');
    setenv(setting.substr(0, equals).c_str(), setting.substr(equals + 1).c_str(), 0);
  }
}

}  // namespace

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  set_environment(PENSTOCK_TEST_ENVIRONMENT);
  return RUN_ALL_TESTS();
}

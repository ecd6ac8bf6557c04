#include "support.h"
START_TEST(test_nothing)
{
}
END_TEST
SUPPORT_MAIN("x", test_nothing)

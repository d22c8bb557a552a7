// SPDX-License-Identifier: Apache-2.0
// The programs of planted defects: NAME: prints the reports of its defect, twelve orders and seeds. No name: the names and kinds.
#ifndef TESTS_HOSTCUDA_FIND_DEFECTS_HPP
#define TESTS_HOSTCUDA_FIND_DEFECTS_HPP

#include <cstdio>

struct Case {
    const char *name, *kind;
    bool (*go)(bool bad);  // false: hostcuda refused it
};

// go(case, bad) runs a case, whatever it wants around it. Exit code: 0 when right kernels passed and every defect was found.
template <int N, typename Go> static int find_defects(int argc, char **argv, const Case (&cases)[N], Go go)
{
    const hostcuda::Order orders[] = {hostcuda::Order::EARLY, hostcuda::Order::LATE, hostcuda::Order::RANDOM};
    int bad = 0;
    for (const Case &c : cases) {
        if (argc < 2) printf("%s:%s\n", c.name, c.kind);
        else if (!strcmp(argv[1], c.name))
            for (int seed = 0; seed < 12; seed++) {
                hostcuda::set_order(orders[seed % 3], (uint64_t)seed);
                const bool passes = go(c, false);
                if (!passes) printf("right but refused: %s\n", hostcuda::report());
                const bool found = !go(c, true);
                printf("%s\n", found ? hostcuda::report() : "not found");
                bad += !passes || !found;
            }
    }
    return bad != 0;
}

#endif

// SPDX-License-Identifier: Apache-2.0
// CuTe's layouts from tests/data/cuda (tools/reference/cute.py made them, and the files say what is in them).
#ifndef TESTS_HOSTCUDA_LAYOUTS_HPP
#define TESTS_HOSTCUDA_LAYOUTS_HPP

#include <cstdint>
#include <cstdio>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

// A number for each element of a tile: (of its row) xor (of its column).
struct Parts {
    std::vector<int> row, column;
    int at(int r, int c) const { return row.at((size_t)r) ^ column.at((size_t)c); }
};

// Who holds an element of a fragment.
struct Fragment {
    std::string name;
    int rows = 0, columns = 0;
    Parts lane, value;
};

// wgmma's view of `count` rows (k_major) or columns (mn_major) from `first` on and of 16 k from `k` on.
struct Slice {
    int first, count, k, start;  // start: bytes from the tile's beginning
    uint64_t bits;               // the descriptor, its start address 0
};

// A tile in shared memory: k_major [rows][k] or mn_major [k][n].
struct Operand {
    std::string name;
    int rows = 0, columns = 0;
    std::vector<int> panels;
    Parts inside;
    std::vector<Slice> slices;

    int offset(int r, int c) const { return panels.at((size_t)c / 64) + inside.at(r, c % 64); }
    int bytes() const { return rows * columns * 2; }
};

struct Layouts {
    std::vector<Fragment> fragments;
    std::vector<Operand> operands;
    std::vector<int> swizzle;  // [row][16-byte column], 8 x 8
    bool whole = true;         // was every line understood?

    explicit Layouts(const std::string &dir) { read(dir + "/fragments.txt"), read(dir + "/operands.txt"); }
    const Fragment &fragment(const std::string &name, int columns) const
    {
        for (const Fragment &f : fragments)
            if (f.name == name && f.columns == columns) return f;
        printf("no fragment %s of %d columns\n", name.c_str(), columns);
        abort();
    }

private:
    static std::vector<int> numbers(std::istream &in)
    {
        std::vector<int> all;
        for (int x; in >> x;) all.push_back(x);
        return all;
    }

    // "lane of a row 0 4 8 ...", behind the first word.
    static void read_parts(Parts *p, std::istream &in)
    {
        std::string of, a, which;
        in >> of >> a >> which;
        (which == "row" ? p->row : p->column) = numbers(in);
    }

    void read(const std::string &path)
    {
        std::ifstream file(path);
        whole = whole && file;
        for (std::string line, word; std::getline(file, line);) {
            std::istringstream in(line);
            if (line.empty() || line[0] == '#' || !(in >> word)) continue;
            if (word == "fragment") {
                fragments.emplace_back();
                in >> fragments.back().name >> fragments.back().rows >> fragments.back().columns;
            } else if (word == "operand") {
                operands.emplace_back();
                in >> operands.back().name >> operands.back().rows >> operands.back().columns;
            } else if (word == "lane") read_parts(&fragments.back().lane, in);
            else if (word == "value") read_parts(&fragments.back().value, in);
            else if (word == "panels") operands.back().panels = numbers(in);
            else if (word == "offset") read_parts(&operands.back().inside, in);
            else if (word == "descriptor") {
                Slice s;
                in >> s.first >> s.count >> s.k >> s.start >> std::hex >> s.bits;
                operands.back().slices.push_back(s);
            } else if (word == "swizzle") {
                for (int i = 0, x; i < 64 && file >> x; i++) swizzle.push_back(x);
            } else whole = false;
        }
    }
};

#endif

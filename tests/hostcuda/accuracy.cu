// SPDX-License-Identifier: Apache-2.0
// Attention's errors against those of torch's own bf16 on the same inputs (tests/data/ops/attention_bf16.txt): at most twice as large.
// usage: accuracy FILE [-v]
#include "tests/hostcuda/attention_bwd.hpp"

#include <fstream>
#include <sstream>

// "64 200 4 2 0 0 0,70,-1,0;70,33,0,70 | 0.0018 0.0025 0.0035 0.0034"
static bool read_case(const std::string &line, Case *c, double (&errors)[4])
{
    std::istringstream in(line);
    std::string segments, segment, bar;
    in >> c->D >> c->T >> c->N >> c->K >> c->softcap >> c->window >> segments >> bar;
    std::istringstream list(segments);
    while (std::getline(list, segment, ';')) {
        Seg g;
        if (sscanf(segment.c_str(), "%d,%d,%d,%d", &g.start, &g.len, &g.prefix, &g.pos0) != 4) return false;
        c->seg.push_back(g);
    }
    for (double &e : errors) in >> e;
    return !in.fail() && bar == "|";
}

static std::vector<double> output_of(const Definition &def)
{
    const Case &c = def.c;
    std::vector<double> o(c.queries());
    for (const Seg &g : c.seg)
        for (int i = 0; i < g.len; i++)
            for (int n = 0; n < c.N; n++) {
                double lse;
                for (const Seen &s : def.keys_of(g, i, n, &lse))
                    for (int d = 0; d < c.D; d++) o[((size_t)(g.start + i) * c.N + n) * c.D + d] += exp(s.score - lse) * def.v(s.key, n, d);
            }
    return o;
}

static double error_of(const std::vector<uint16_t> &got, const std::vector<double> &want)
{
    double difference = 0, size = 0;
    for (size_t i = 0; i < got.size(); i++) difference += (of_bf16(got[i]) - want[i]) * (of_bf16(got[i]) - want[i]), size += want[i] * want[i];
    return sqrt(difference / size);
}

static bool is_near(const Case &c, Form form, const double ours[4], const double torch[4], bool show)
{
    const char *const names[4] = {"o", "dq", "dk", "dv"};
    for (int i = 0; i < 4; i++) {
        if (show) printf("%s D %d softcap %g window %d: %s %.6f, torch %.6f\n", form == MMA ? "mma" : "sm90", c.D, (double)c.softcap, c.window, names[i], ours[i], torch[i]);
        if (!(ours[i] <= 2 * torch[i])) return printf("the error of %s is %g, torch's %g: ", names[i], ours[i], torch[i]), false;
    }
    return true;
}

static bool check_line(const std::string &line, bool show)
{
    Case c = {};
    double torch[4];
    if (!read_case(line, &c, torch)) return printf("not a case: %s\n", line.c_str()), false;
    state = 31;
    const Inputs in = random_inputs(c);
    std::vector<uint16_t> dout = random_bf16(c.queries());
    const Definition def = {c, in};
    const std::vector<bool> used = c.used();
    for (size_t i = 0; i < dout.size(); i++)
        if (!used[i / (c.N * c.D)]) dout[i] = 0;
    const Want w = gradient_of(def, dout);
    const std::vector<double> o = output_of(def);
    for (Form form : {MMA, SM90}) {
        Result r;
        if (!run_case(c, in, dout, form, &r)) return false;
        const double ours[4] = {error_of(r.o, o), error_of(r.dq, w.dq.value), error_of(r.dk, w.dk.value), error_of(r.dv, w.dv.value)};
        if (!is_near(c, form, ours, torch, show)) return printf("%s\n", line.c_str()), false;
    }
    return true;
}

int main(int argc, char **argv)
{
    std::ifstream file(argc > 1 ? argv[1] : "");
    std::string line;
    int cases = 0;
    for (; std::getline(file, line); cases++)
        if (!check_line(line, argc > 2)) return 1;
    return cases < 6 && printf("%d cases only\n", cases);
}

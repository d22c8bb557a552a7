# SPDX-License-Identifier: Apache-2.0
"""ReFrame test of an installed imf: the selftest on 1, 2 and 4 tasks.

    reframe -C SITE.py -c tools/reframe_imf.py -r
    reframe -C SITE.py -c tools/reframe_imf.py -r -S executable=$HOME/imf/bin/imf -S digest=0123...

It passes when both layouts of every run, and the runs on 2 and 4 tasks beside the one on 1 task, print the same digest for every
stage. `digest` is that of the last stage, eval, which all before it lead to, as an earlier run printed it on this system: digests
belong to a build and a kind of processor, so none stands here. Performance: seconds of all stages in both layouts.
"""
import os

import reframe as rfm
import reframe.utility.sanity as sn

LINE = r'^(?P<layout>first|second) +(?P<stage>[a-z]+) +(?P<digest>[0-9a-f]{32}) +(?P<seconds>[0-9]+\.[0-9]) s$'
VERDICT = r'^selftest: 8 stages, all digests agree$'
STAGES = 8


@rfm.simple_test
class ImfSelftest(rfm.RunOnlyRegressionTest):
    descr = 'imf selftest: every layout gives the same digests'
    valid_systems = ['*']
    valid_prog_environs = ['*']
    executable = 'imf'
    executable_opts = ['selftest', '--dir', '.', '--junit', 'selftest.xml']
    keep_files = ['selftest.xml']
    time_limit = '30m'
    tasks = parameter([1, 2, 4])
    digest = variable(str, value='')

    @run_after('init')
    def choose_tasks(self):
        self.num_tasks = self.tasks
        if self.tasks != 1:
            self.depends_on(self.on_one_task())

    def on_one_task(self):
        return type(self).variant_name(type(self).get_variant_nums(tasks=lambda n: n == 1)[0])

    def digests(self, layout, test):
        """[(stage, digest)] of a layout of a test that has run."""
        output = os.path.join(test.stagedir, str(test.stdout))
        found = sn.extractall(LINE, output, ['layout', 'stage', 'digest'])
        return [(stage, digest) for which, stage, digest in sn.evaluate(found) if which == layout]

    @sanity_function
    def digests_agree(self):
        first = self.digests('first', self)
        one = self if self.tasks == 1 else self.getdep(self.on_one_task())
        return sn.all([
            sn.assert_found(VERDICT, self.stdout, 'the selftest did not end well: {0}'),
            sn.assert_eq(len(first), STAGES, '{0} stages in the output, not {1}'),
            sn.assert_eq(first, self.digests('second', self), 'the layouts differ: {0}, {1}'),
            sn.assert_eq(first, self.digests('first', one), 'another number of tasks gives other digests: {0}, on one task {1}'),
            sn.assert_eq(dict(first).get('eval'), self.digest or dict(first).get('eval'), 'the digest is {0}, the reference {1}'),
        ])

    @performance_function('s')
    def seconds(self):
        return sn.round(sn.sum(sn.extractall(LINE, self.stdout, 'seconds', float)), 1)

"""The reader of the lines that jobs log their metrics with."""

import json
import math

import pytest

from launch_prefect.runtime import launch_run
from launch_prefect.tracking.metrics import MetricsLine, parse_metrics

PREFIX = "::launch-metrics:: "


def test_it_reads_what_launch_run_writes(capsys):
    launch_run.log({"loss": 0.1, "epoch": 3, "lr": math.inf, "drop": -math.inf, "norm": math.nan}, step=7)
    line = capsys.readouterr().out
    for text in (line, line.rstrip("\n"), line.replace("\n", "\r\n")):
        read = parse_metrics(text)
        assert read is not None
        assert read.step == 7
        assert read.time > 1_600_000_000
        assert math.isnan(read.metrics["norm"])
        rest = {name: value for name, value in read.metrics.items() if name != "norm"}
        assert rest == {"loss": 0.1, "epoch": 3, "lr": math.inf, "drop": -math.inf}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"metrics":{"loss":1}}', MetricsLine(None, {"loss": 1}, None)),
        ('{ "time": 5, "metrics": {"ü": -1e-3}, "step": null }', MetricsLine(None, {"ü": -0.001}, 5)),
        ('{"metrics":{"a":1e999},"step":0,"later":"more"}', MetricsLine(0, {"a": math.inf}, None)),
        ('{"metrics":{"a":100000000000000000000}}', MetricsLine(None, {"a": 1e20}, None)),
        ('{"metrics":{"a":Infinity}}', MetricsLine(None, {"a": math.inf}, None)),
    ],
)
def test_it_reads_what_other_languages_write(text, expected):
    assert parse_metrics(PREFIX + text) == expected


@pytest.mark.parametrize(
    "line",
    [
        "",
        "loss 0.1",
        PREFIX,
        "::launch-metrics::",
        ' ::launch-metrics:: {"metrics":{"a":1}}',
        '+ echo ::launch-metrics:: {"metrics":{"a":1}}',
        '::launch-metrics::{"metrics":{"a":1}}',
        PREFIX + '{"metrics":{"a":1}',
        PREFIX + '{"metrics":{"a":1}} and more',
        PREFIX + '[{"metrics":{"a":1}}]',
        PREFIX + "null",
        PREFIX + "{}",
        PREFIX + '{"metrics":{}}',
        PREFIX + '{"metrics":[1]}',
        PREFIX + '{"metrics":{"":1}}',
        PREFIX + '{"metrics":{"a":"1"}}',
        PREFIX + '{"metrics":{"a":true}}',
        PREFIX + '{"metrics":{"a":null}}',
        PREFIX + '{"metrics":{"a":{"b":1}}}',
        PREFIX + '{"metrics":{"a":1,"b":"x"}}',
        PREFIX + '{"metrics":{"a":1},"step":-1}',
        PREFIX + '{"metrics":{"a":1},"step":1.5}',
        PREFIX + '{"metrics":{"a":1},"step":true}',
        PREFIX + '{"metrics":{"a":1},"time":"now"}',
        PREFIX + '{"metrics":{"a":1},"time":"NaN"}',
        PREFIX + '{"metrics":{"a":%s}}' % ("9" * 400),
        PREFIX + '{"metrics":{"a":%s}}' % ("9" * 5000),
        PREFIX + "[" * 200_000,
        PREFIX + "\x00\ufffd\udcff",
    ],
)
def test_anything_else_is_a_log_line_like_any_other(line):
    assert parse_metrics(line) is None


def test_a_line_of_a_million_characters_is_read():
    metrics = {f"metric{number}": number / 3 for number in range(40_000)}
    line = PREFIX + json.dumps({"metrics": metrics})
    assert len(line) > 1_000_000
    assert parse_metrics(line).metrics == metrics

"""Chat templates of strangers: whatever they try, they end in a sentence, soon, and leave nothing behind."""

from __future__ import annotations

import pytest
from test_workloads_template import ASKED, model, rendered

from loadgen.errors import UsageError
from loadgen.workloads.template import load_template

DOUBLING = "{% set ns = namespace(x=START) %}{% for i in range(99) %}{% set ns.x = STEP %}{% endfor %}{{ ns.x|length }}"
HOSTILE = {
    "a range of 10**9": "{% for i in range(10**9) %}x{% endfor %}",
    "a loop in a loop": "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
    "a long text": "{{ 'x' * 10**9 }}",
    "a long text from the right": "{{ 10**9 * 'x' }}",
    "a long list": "{{ ([1] * 10**9)|length }}",
    "a large power": "{% set ns = namespace(x=2) %}{% for i in range(99) %}{% set ns.x = ns.x * ns.x %}{% endfor %}",
    "text doubled by ~": DOUBLING.replace("START", "'xx'").replace("STEP", "ns.x ~ ns.x"),
    "text doubled by +": DOUBLING.replace("START", "'xx'").replace("STEP", "ns.x + ns.x"),
    "text doubled by join": DOUBLING.replace("START", "'xx'").replace("STEP", "[ns.x, ns.x]|join"),
    "a list doubled": DOUBLING.replace("START", "[1]").replace("STEP", "ns.x + ns.x"),
    "a list that holds itself twice": DOUBLING.replace("START", "[1]").replace("STEP", "[ns.x, ns.x]"),
    "a mapping that holds itself twice": DOUBLING.replace("START", "{}").replace("STEP", "dict(a=ns.x, b=ns.x)"),
    "a macro that calls itself": "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "a macro that calls itself twice": (
        "{% macro f(n) %}{% if n %}{% set a = f(n - 1) %}{% set a = f(n - 1) %}{% endif %}{% endmacro %}{{ f(60) }}"
    ),
    "a wide format": "{{ '%1000000000d' % 1 }}",
    "a wide format by argument": "{{ '%*d' % (1000000000, 1) }}",
    "a wide format of the other kind": "{{ '{:1000000000}'.format(1) }}",
    "a wide format of the other kind by argument": "{{ '{:{}}'.format(1, 1000000000) }}",
    "padding": "{{ 'x'.ljust(10**9) }}",
    "a padding filter": "{{ 'x'|center(10**9) }}",
    "a replacement that grows": "{{ ('x' * 100000).replace('x', 'y' * 100000) }}",
    "a replacement by filter, its words in another order": "{{ ('x' * 90000)|replace(new='y' * 90000, old='x') }}",
    "a join that grows": "{{ ('y' * 100000).join('x' * 100000) }}",
    "a wide JSON": "{{ [1]|tojson(indent=10**9) }}",
    "a JSON of long separators": "{{ range(9999)|list|tojson(separators=('x' * 900000, ':')) }}",
    "a wide indent": "{{ 'a\nb'|indent(10**9) }}",
    "a wide date": "{{ strftime_now('%1000000000Y') }}",
    "a split into many": "{% set a = 'x' * 900000 %}{% for i in range(99) %}{% set b = a.split('x') %}{% endfor %}",
    "a long search, often": (
        "{% set a = 'x' * 900000 %}{% set c = 'x' * 450000 ~ 'y' %}{% for i in range(999) %}{{ a.find(c) }}{% endfor %}"
    ),
    "a strip of many characters": "{{ ('x' * 900000).strip('y' * 900000 ~ 'x') }}",
    "a budget that pays back": "{% for i in range(99999)|charge_each(-10**9) %}" * 2 + "{% endfor %}" * 2,
    "much output": "{% for i in range(99999) %}{{ 'x' * 10000 }}{% endfor %}",
    "much text of its own": "{% for i in range(99999) %}" + "y" * 200_000 + "{% endfor %}",
    "a long template": "x" * 300_000,
    "deep brackets": "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}",
    "deep statements": "{% if 1 %}" * 2000 + "{% endif %}" * 2000,
    "Python's internals": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "Python's internals by format": "{{ '{0.__class__.__mro__}'.format(messages) }}",
    "a change of the messages": "{% set _ = messages.append(1) %}",
    "another file": "{% include 'secrets' %}",
    "a recursive loop": "{% for a in [[1]] recursive %}{{ loop(a) }}{% endfor %}",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_template_ends_in_a_sentence(tmp_path, name):
    with pytest.raises(UsageError, match=r"chat_template\.jinja: (the|a) chat template .*\."):
        rendered(tmp_path, HOSTILE[name])


def test_a_namespace_that_holds_others_prints_short(tmp_path):
    source = (
        "{% set ns = namespace(x=1) %}{% for i in range(60) %}{% set ns.x = namespace(a=ns.x, b=ns.x) %}{% endfor %}"
    )
    assert rendered(tmp_path, source + "{{ ns.x }} {{ [ns.x] ~ '' }} {{ '%s' % ns.x }}") == (
        "<namespace> [<namespace>] <namespace>"
    )


def test_the_budget_is_whole_again_for_the_next_render(tmp_path):
    loops = "{% for i in range(99999) %}" * 2 + "{% endfor %}" * 2
    busy = "{% if messages|length == 1 %}" + loops + "{% endif %}ok"
    template = load_template(model(tmp_path, busy))
    with pytest.raises(UsageError):
        template.render(ASKED[:1])
    assert template.render(ASKED) == "ok"

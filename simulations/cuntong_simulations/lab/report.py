"""The report of a run: one page that holds everything."""

from __future__ import annotations

from html import escape

from cuntong_daemon.i18n import _
from cuntong_simulations.page import document, table

from .plots import completion_plot, page_plot, queue_plot, rate_plot, rtt_plot
from .result import Result
from .summary import headline, problem_text


def render(result: Result) -> str:
    """The page: no script, nothing from elsewhere."""
    title = f"{result.topology.name} · {result.scenario.name}"
    problems = result.machine.problems
    verdict = (
        "<br>".join(
            [escape(_("This run doesn't count."))] + [escape(problem_text(one)) for one in problems]
        )
        if problems
        else escape(_("The emulator proved itself and kept up: this run counts."))
    )
    plots = [
        (_("When each place had everything"), completion_plot(result)),
        (_("What the links carried"), rate_plot(result)),
        (_("How long packets waited"), queue_plot(result)),
        (_("Pages"), page_plot(result)),
        (_("Round trips"), rtt_plot(result)),
    ]
    body = [
        f"<h1>{escape(title)}</h1>",
        f'<p class="lead">{escape(_lead(result))}</p>',
        f'<p class="verdict{" bad" if problems else ""}">{verdict}</p>',
        table([], headline(result)),
        *(f"<h2>{escape(heading)}</h2>{svg}" for heading, svg in plots if svg),
        f"<h2>{escape(_('Places'))}</h2>{_completions(result)}",
        f"<h2>{escape(_('Links'))}</h2>{_links(result)}",
    ]
    if result.foreground:
        body.append(f"<h2>{escape(_('The public'))}</h2>{_foreground(result)}")
    body.append(f"<h2>{escape(_('The machine'))}</h2>{_machine(result)}")
    return document(title, body)


def _lead(result: Result) -> str:
    return _(
        "{contender}, {places} places, {routing} routing, {payload} MB on the links ({content} MB of files), seed {seed}, {when}.",
        contender=result.contender,
        places=len(result.topology.nodes),
        routing=result.topology.routing,
        payload=f"{result.payload_bytes / 1e6:.2f}",
        content=f"{result.content_bytes / 1e6:.2f}",
        seed=result.seed,
        when=result.began_at,
    )


def _completions(result: Result) -> str:
    costs = {found.code: found for found in result.daemons}
    rows = []
    for found in result.completions:
        cost = costs.get(found.code)
        rows.append(
            [
                found.code,
                _(found.tier),
                "-" if found.seconds is None else f"{found.seconds:.1f}",
                f"{found.bound_s:.1f}",
                "-" if found.seconds is None else f"{found.seconds / found.bound_s:.3f}",
                f"{found.used:.3f}",
                f"{found.longest_stall_s:.0f}",
                f"{cost.cpu * 100:.1f}" if cost else "-",
                f"{cost.peak_mib:.0f}" if cost else "-",
            ]
        )
    heads = [_("Place"), _("Tier"), _("done, s"), _("bound, s"), _("ratio"), _("use of its link"),
             _("longest stall, s"), _("CPU, % of a core"), _("memory, MiB")]  # fmt: skip
    return table(heads, rows)


def _links(result: Result) -> str:
    rows = [
        [
            found.code,
            _("up") if found.direction == "up" else _("down"),
            f"{found.rate_kbit_s:g}",
            f"{found.bytes / 1e6:.2f}",
            f"{found.copies:.2f}",
            f"{found.wait_p50_ms:.0f}",
            f"{found.wait_p95_ms:.0f}",
            str(found.overflowed),
            str(found.lost),
        ]
        for found in result.links
    ]
    heads = [_("Place"), _("Direction"), _("kbit/s"), _("MB"), _("copies"), _("wait p50, ms"),
             _("wait p95, ms"), _("overflowed"), _("lost")]  # fmt: skip
    return table(heads, rows)


def _foreground(result: Result) -> str:
    rows = [
        [
            found.code,
            f"{found.idle_page_s.p50:.2f}" if found.idle_page_s.count else "-",
            f"{found.page_s.p50:.2f} / {found.page_s.p95:.2f}" if found.page_s.count else "-",
            str(found.page_s.count + found.page_s.failed) if found.page_s.count else "-",
            f"{found.idle_rtt_ms.p50:.0f} / {found.idle_rtt_ms.p95:.0f}" if found.idle_rtt_ms.count else "-",
            f"{found.rtt_ms.p50:.0f} / {found.rtt_ms.p95:.0f}" if found.rtt_ms.count else "-",
            f"{found.rtt_ms.failed}" if found.rtt_ms.count else "-",
            f"{found.idle_bulk_kbit_s:.0f} → {found.bulk_kbit_s:.0f}" if found.bulk_kbit_s else "-",
        ]
        for found in result.foreground
    ]  # fmt: skip
    heads = [_("Place"), _("page idle, s"), _("page p50 / p95, s"), _("pages"), _("RTT idle p50 / p95, ms"),
             _("RTT p50 / p95, ms"), _("pings lost"), _("bulk idle → now, kbit/s")]  # fmt: skip
    return table(heads, rows)


def _machine(result: Result) -> str:
    machine = result.machine
    facts = [
        (
            _("Lateness of the emulator, p50 / p99 / max"),
            f"{machine.lateness_p50_ms:.2f} / {machine.lateness_p99_ms:.2f} / {machine.lateness_max_ms:.1f} ms",
        ),
        (_("Real-time priority"), _("yes") if machine.is_real_time else _("no")),
        (_("Emulator, of one core"), f"{machine.emulator_cpu * 100:.0f} %"),
        (_("All cores busy"), f"{machine.busy * 100:.0f} %"),
        (_("Packets dropped by the kernel"), str(machine.kernel_drops)),
    ]
    proof = [
        [
            check.name,
            f"{check.expected:.4g} {check.unit}",
            f"{check.measured:.5g}",
            f"± {check.tolerance:.3g}",
            _("yes") if check.is_met else _("NO"),
        ]
        for check in result.proof
    ]
    heads = [_("Proof"), _("expected"), _("measured"), _("tolerance"), _("met")]
    return table([], facts) + (table(heads, proof) if proof else "")

"""The other sections of a report's page: charts, recipe, environment; None where there is nothing to show.

learning_curves(draft), calibration(draft), recipe(draft), environment(draft)
"""

from engine.evaluation.report import charts
from engine.evaluation.report.draft import Draft, facts_list, figure, interval_text, link, number, section
from engine.evaluation.report.markup import Element, element


def learning_curves(draft: Draft) -> Element | None:
    """A chart for each scalar of the run."""
    panels = draft.curve_panels
    if not panels:
        return None
    left_out = len({curve.chart for curve in draft.content.curves}) - len(panels)
    return section(
        'curves',
        'Learning curves',
        element('div', [figure(panel) for panel in panels], class_='charts'),
        element(
            'p',
            f'{left_out} more are in ' if left_out else 'All points are in ',
            link('learning_curves.csv'),
            '.',
            class_='note',
        ),
    )


def calibration(draft: Draft) -> Element | None:
    """Reliability diagrams with the expected calibration error."""
    if not any(bin_.count for each in draft.content.subjects for bin_ in each.statistics.calibration):
        return None
    figures = []
    for (title, subject), panel in zip(draft.titled(''), draft.reliability_panels, strict=True):
        statistics = subject.statistics
        interval = interval_text('ece', statistics.intervals.get('ece'))
        caption = f'ECE {number(statistics.values["ece"])}' + (f' ({interval})' if interval else '')
        named = [element('b', title), ' · '] if draft.is_comparison else None
        figures.append(element('figure', element('figcaption', named, caption), charts.to_svg(panel)))
    return section(
        'calibration',
        'Calibration',
        element(
            'p',
            'Of the examples to which the net gives a confidence of 80 %, 80 % should be right. Dots: accuracy of the '
            'examples in a bin of confidence, with Wilson’s 95 % interval; bands: the gap, which the expected '
            'calibration error (ECE) averages over the examples. Numbers are in ',
            link('calibration.csv'),
            '.',
            class_='note',
        ),
        element('div', figures, class_='charts'),
    )


def recipe(draft: Draft) -> Element | None:
    """Options of the run."""
    facts = draft.content.recipe
    return section('recipe', 'Recipe', facts_list(facts)) if facts else None


def environment(draft: Draft) -> Element | None:
    """Versions and machine."""
    facts = draft.content.environment
    return section('environment', 'Environment', facts_list(facts)) if facts else None

"""The pages, one module each; loading one makes it known."""

from app.dashboard.pages import (
    access,
    compare,
    dataset,
    datasets,
    job,
    jobs,
    order,
    overview,
    student,
    students,
    sweep,
)

PAGES = (
    *(overview, datasets, dataset, order, jobs, job, sweep),
    *(students, student, compare, access),
)

"""Studies: many runs from one file, whatever happens to them, and the table that they make.

A study is a folder, `studies/NAME` unless told otherwise:

    study.yaml       what was asked for, resolved: the file with every default stated
    plan.json        the rows, each with its changes, and the runs that belong to it (`Plan`)
    study.log        what was told while it ran
    trials.log       of a study that searches: what Optuna was told
    slurm/           of one under Slurm: its jobs, and what they printed
    .lock            held by the process that runs the study
    rows/RUN/        a run: `ROW-seedN`, an ordinary run folder (training.run.run_folder), with
        outcome.json     its state, what ended it, and its figures in short (`Outcome`)
        scores.json      every utterance as it was spelled, part by part (`read_scores`)
        output.log       what the run printed, over all its starts
    report.html, report.md, report.csv      the page (study.report)

A run belongs to every row that asks for the very same recipe and seed, so a row may have no folder
of its own name: go by `StudyFolder.read_plan()`. Runs that no row asks for any more stay where they
are. The journey: `study.py` reads the file, `axes.py` and `trials.py` make rows of its axes,
`plan.py` resolves them (`running/preview.py` shows that), `running/runner.py` gives what is missing
to a place (`where/`), where `running/single.py` trains and scores one run in a process of its own;
`folder.py` is what they tell each other by.
"""

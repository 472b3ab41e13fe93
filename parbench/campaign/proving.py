"""What is launched beside the rounds: the proof of every cell before them, references for their steps after them."""

from collections import defaultdict
from collections.abc import Iterator

from parbench.campaign.recorder import Recorder
from parbench.campaign.tasks import Task
from parbench.plan.cell_key import without_compilation
from parbench.plan.cells import Cell, Plan
from parbench.plan.proof import course_of, proof_workload, timed_twins_of, twins_of
from parbench.records.assignment import PARITY_STEPS
from parbench.records.cell import ProofRecord


def prove(plan: Plan, recorder: Recorder) -> None:
    """Proves every cell once, with the whole batch or, where that is out of memory in fp32, the next smaller one."""
    tasks = _proof_tasks(plan)
    for cell in plan.runnable:
        for proof in cell.record.proofs or ():
            reference = recorder.take(tasks[proof.reference])
            if reference.status == "ok" and recorder.take(_proof(cell, proof)).status != "out_of_memory":
                break
            if reference.status not in ("ok", "out_of_memory"):
                break


def verify(plan: Plan, recorder: Recorder) -> None:
    """Launches the references of timed steps, up to as many steps as these took, but no more than `verify_steps`.

    A cell that took more steps is launched once more, to validate it after exactly `verify_steps`.
    """
    cap = plan.scenario.measure.verify_steps
    taken = recorder.lengths()
    for cells in _by_reference(plan).values():
        lengths = {cell.record.key: taken.get(cell.record.key, set()) for cell in cells}
        validated = {min(steps, cap) for each in lengths.values() for steps in each}
        if not validated:
            continue
        for cell in cells:
            if max(lengths[cell.record.key], default=0) > cap and cell.workload.phase == "train" and _can_prove(cell):
                recorder.take(_capped(cell, cap))
        recorder.take(_reference(cells, validated))


def expected_proofs(plan: Plan) -> Iterator[Task]:
    """The tasks beside the rounds that are certain before anything is measured."""
    references = _proof_tasks(plan)
    for cell in plan.runnable:
        for proof in (cell.record.proofs or ())[:1]:
            yield references[proof.reference]
            yield _proof(cell, proof)
    for cells in _by_reference(plan).values():
        yield _reference(cells, {PARITY_STEPS})


def _by_reference(plan: Plan) -> dict[str, list[Cell]]:
    """The cells that share a reference, by its key."""
    groups: dict[str, list[Cell]] = defaultdict(list)
    for cell in plan.runnable:
        groups[cell.record.reference].append(cell)
    return groups


def _proof_tasks(plan: Plan) -> dict[str, Task]:
    """The tasks of all proofs' references by their key, each of which serves several cells."""
    groups: dict[str, list[tuple[Cell, ProofRecord]]] = defaultdict(list)
    for cell in plan.runnable:
        for proof in cell.record.proofs or ():
            groups[proof.reference].append((cell, proof))
    tasks = {}
    for key, served in groups.items():
        cell, proof = served[0]
        course = course_of(cell.record.exact)
        workload = proof_workload(without_compilation(cell.workload), proof.global_batch, course)
        shards = {each.record.data_shards for each, _ in served}
        tasks[key] = Task(
            purpose="reference",
            cell=cell,
            key=key,
            models=max(each.record.models for each, _ in served),
            workload=workload,
            steps=course.steps,
            quiet_steps=course.quiet_steps,
            twins=twins_of(workload, shards),
        )
    return tasks


def _proof(cell: Cell, proof: ProofRecord) -> Task:
    course = course_of(cell.record.exact)
    return Task(
        purpose="proof",
        cell=cell,
        key=proof.key,
        models=cell.record.models,
        workload=proof_workload(cell.workload, proof.global_batch, course),
        steps=course.steps,
        quiet_steps=course.quiet_steps,
    )


def _can_prove(cell: Cell) -> bool:
    """Whether the parbench that measures the cell knows proofs; an older one in a comparison does not."""
    return cell.record.proofs is not None


def _capped(cell: Cell, cap: int) -> Task:
    """The cell's own workload, untimed, for `cap` steps."""
    return Task(
        purpose="proof", cell=cell, key=cell.record.key, models=cell.record.models, steps=cap, validate_at=(cap,)
    )


def _reference(cells: list[Cell], validated: set[int]) -> Task:
    """The reference losses that all cells of a workload and global batch share."""
    cell = cells[0]
    trains = cell.workload.phase == "train"
    return Task(
        purpose="reference",
        cell=cell,
        key=cell.record.reference,
        models=max(each.record.models for each in cells),
        steps=max(validated),
        validate_at=tuple(sorted({0, *validated})) if trains else (),
        twins=timed_twins_of(cell.workload),
    )

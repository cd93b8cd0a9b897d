"""The automation that ends zombie runs: a run that shows no sign of life for 90 s becomes Crashed.

Every event of a run is a sign of life: a change of state, whatever its name, or a heartbeat (every 30 s,
``PREFECT_FLOWS_HEARTBEAT_FREQUENCY``). The watch begins when a run becomes Pending, so a process that dies before its
first heartbeat is noticed too.
"""

from __future__ import annotations

from datetime import timedelta

from prefect.automations import Automation
from prefect.events.actions import ChangeFlowRunState
from prefect.events.schemas.automations import EventTrigger, Posture
from prefect.states import StateType

NAME = "fusionrec: zombie runs"
WITHIN = timedelta(seconds=90)


def zombies() -> Automation:
    """The automation as it should be."""
    run = {"prefect.resource.id": "prefect.flow-run.*"}
    return Automation(
        name=NAME,
        description="A run without a heartbeat or any other event for 90 s: its process has died.",
        trigger=EventTrigger(
            after={"prefect.flow-run.Pending", "prefect.flow-run.Running", "prefect.flow-run.heartbeat"},
            expect={"prefect.flow-run.*"},
            match=run,
            for_each={"prefect.resource.id"},
            posture=Posture.Proactive,
            threshold=1,
            within=WITHIN,
        ),
        actions=[
            ChangeFlowRunState(
                state=StateType.CRASHED, name="Crashed", message="no heartbeat for 90 s: the process has died"
            )
        ],
    )


def ensure() -> bool:
    """Create it, or put it back where it differs; whether anything was written. Switched off stays switched off."""
    wanted = zombies()
    try:
        found = Automation.read(name=NAME)
    except ValueError:
        wanted.create()
        return True
    if (found.trigger, found.actions) == (wanted.trigger, wanted.actions):
        return False
    found.trigger, found.actions, found.description = wanted.trigger, wanted.actions, wanted.description
    found.update()
    return True

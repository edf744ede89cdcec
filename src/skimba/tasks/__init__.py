"""Tasks: their samples, loss, predictions, measure and drawing; tables of predictions."""

from skimba.tasks.base import Criterion, Forward, Task
from skimba.tasks.classification import CLASSIFICATION, Classification, ClassPrediction
from skimba.tasks.running import predict_all, run
from skimba.tasks.table import TASKS, task_of

__all__ = [
    "CLASSIFICATION",
    "TASKS",
    "ClassPrediction",
    "Classification",
    "Criterion",
    "Forward",
    "Task",
    "predict_all",
    "run",
    "task_of",
]

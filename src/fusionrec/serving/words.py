"""The start page's words: key -> (English, Chinese)."""

from __future__ import annotations

WORDS = {
    "lead": (
        "One project, three doors. Whatever you start here, the others know it.",
        "一个项目，三个入口。无论从哪里开始，其他入口都会知道。",
    ),
    "doors": ("Doors", "入口"),
    "open": ("Open", "打开"),
    "state": ("State of the project", "项目状态"),
    "reports": ("Reports", "报告"),
    "no_reports": ("None yet: run the pipeline first.", "尚无报告：请先运行流水线。"),
    "findings": ("What the doctor says", "检查结果"),
    "looking": ("Looking …", "检查中……"),
    "all_good": ("Nothing is wrong.", "一切正常。"),
    "language": ("中文", "English"),
    "stop": ("Ctrl-C in the terminal stops everything.", "在终端按 Ctrl-C 停止全部服务。"),
    "prefect": ("Prefect", "Prefect"),
    "prefect_about": (
        "Start the pipeline, a single stage or a drift check from a form; watch, cancel, schedule.",
        "通过表单启动流水线、单个阶段或漂移检查；查看、取消、定时。",
    ),
    "mlflow": ("MLflow", "MLflow"),
    "mlflow_about": (
        "Every registered model with its metrics; move the alias champion to put one in charge.",
        "所有已注册模型及其指标；移动别名 champion 即可切换模型。",
    ),
    "evidently": ("Evidently", "Evidently"),
    "evidently_about": ("The history of the drift checks, modality by modality.", "漂移检查的历史记录，按模态查看。"),
    "evaluation": ("Evaluation report", "评估报告"),
    "evaluation_about": (
        "How good the model is, for whom, and how sure that is.",
        "模型效果如何，对谁有效，把握多大。",
    ),
    "gate": ("What the gate found", "数据闸门结果"),
    "gate_about": ("Rows accepted and set aside, with the reasons.", "接受与隔离的数据行及其原因。"),
    "comparison": ("What changed", "变更对比"),
    "comparison_about": ("The newest version beside the champion of its time.", "最新版本与当时模型的对比。"),
    "data_docs": ("Data Docs", "Data Docs"),
    "data_docs_about": ("Great Expectations on the newest partitions.", "Great Expectations 对最新分区的校验。"),
    "drift": ("Drift report", "漂移报告"),
    "drift_about": ("What changed between the reference and the latest batch.", "参考数据与最新批次之间的变化。"),
    "champion": ("Champion", "当前模型"),
    "challenger": ("Challenger", "候选模型"),
    "model": ("Model", "模型"),
    "bundle": ("Bundle", "模型包"),
    "pipeline": ("Last pipeline run", "最近一次运行"),
    "monitor": ("Last drift check", "最近一次漂移检查"),
}

"""Movies and a cortex with known answers, written as the files of a real study."""

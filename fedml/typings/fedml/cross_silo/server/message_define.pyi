class MyMessage:
    MSG_ARG_KEY_MODEL_PARAMS: str
    MSG_ARG_KEY_NUM_SAMPLES: str
